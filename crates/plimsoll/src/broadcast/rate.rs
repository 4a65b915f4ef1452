//! How fast subscribers may come: the generic cell rate algorithm (ITU-T I.371), one number of state. Time is passed in.

use std::time::Duration;

/// The time at which the next one would come if all came evenly.
#[derive(Debug, Default)]
pub(super) struct Rate {
    due: Duration,
}

impl Rate {
    /// Lets one in at `now`, at `per_second` on average and `burst` at once; or says how long until there is room. 0 a second: no limit.
    pub(super) fn admit(&mut self, now: Duration, per_second: u32, burst: u32) -> Result<(), Duration> {
        let Some(each) = Duration::from_secs(1).checked_div(per_second) else { return Ok(()) };
        let due = self.due.max(now);
        let early = (due - now).saturating_sub(each.saturating_mul(burst.max(1) - 1));
        if !early.is_zero() {
            return Err(early);
        }
        self.due = due + each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_then_a_burst_again_after_a_pause() {
        let mut rate = Rate::default();
        let ms = Duration::from_millis;
        let mut at = |when: u64| rate.admit(ms(when), 10, 3);
        assert_eq!([at(0), at(0), at(0)], [Ok(()); 3]);
        assert_eq!(at(0), Err(ms(100)));
        assert_eq!((at(99), at(100), at(100)), (Err(ms(1)), Ok(()), Err(ms(100))));
        assert_eq!([at(5_000), at(5_000), at(5_000)], [Ok(()); 3]);
        assert_eq!(at(5_050), Err(ms(50)));
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_is_one() {
        let mut rate = Rate::default();
        assert!((0..1_000).all(|_| rate.admit(Duration::ZERO, 0, 0).is_ok()));
        assert_eq!(rate.admit(Duration::ZERO, 1, 0), Ok(()));
        assert_eq!(rate.admit(Duration::ZERO, 1, 0), Err(Duration::from_secs(1)));
    }
}
