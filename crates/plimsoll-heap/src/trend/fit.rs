//! Least squares of one trend, alone or with a bend, beside a day's rhythm; an intercept for each life. At most 8 terms over
//! at most [`super::BLOCKS_MAX`] values; a model is chosen by Schwarz's criterion (1978) over the values that are independent.

use super::blocks::Block;
use super::rank::autocorrelation;

/// Terms of a model at most: slope, bend, curve, four of the rhythm.
const TERMS_MAX: usize = 8;
/// Seconds of a day.
pub(crate) const DAY: f64 = 86_400.0;
/// Noise is never taken to remember more than this of its predecessor.
const MEMORY_MAX: f64 = 0.95;

/// What a model is made of beside the intercepts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Model {
    /// Growth with age.
    pub(crate) slope: bool,
    /// Another slope from this age (seconds) on.
    pub(crate) knot: Option<f64>,
    /// A square term of the age.
    pub(crate) curve: bool,
    /// A day's wave and its first overtone.
    pub(crate) rhythm: bool,
}

/// A fitted model.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    pub(crate) model: Model,
    /// One a term, in the order of [`Model::terms`].
    coefficients: Vec<f64>,
    /// The inverse of the normal matrix.
    inverse: Vec<Vec<f64>>,
    /// What is left of each block.
    pub(crate) residuals: Vec<f64>,
    /// Sum of the squares of the residuals.
    pub(crate) squares: f64,
    /// Age is counted in this many seconds, for the numerics.
    unit: f64,
    parameters: usize,
}

impl Model {
    fn terms(self, block: &Block, unit: f64) -> Vec<f64> {
        let age = block.age / unit;
        let mut terms = Vec::with_capacity(TERMS_MAX);
        if self.slope {
            terms.push(age);
        }
        if let Some(knot) = self.knot {
            terms.push((age - knot / unit).max(0.0));
        }
        if self.curve {
            terms.push(age * age);
        }
        if self.rhythm {
            let angle = std::f64::consts::TAU * (block.at / DAY).rem_euclid(1.0);
            terms.extend([angle.sin(), angle.cos(), (2.0 * angle).sin(), (2.0 * angle).cos()]);
        }
        terms
    }

    /// Fits it to the blocks; `None` where the terms cannot be told apart, or there are too few blocks.
    pub(crate) fn fit(self, blocks: &[Block]) -> Option<Fit> {
        let unit = blocks.iter().map(|b| b.age).fold(1.0, f64::max);
        // The last number of a row is the value.
        let mut rows: Vec<Vec<f64>> = blocks
            .iter()
            .map(|block| {
                let mut row = self.terms(block, unit);
                row.push(block.value);
                row
            })
            .collect();
        let terms = rows.first()?.len() - 1;
        let mut lives = 0;
        let mut begin = 0;
        for life in blocks.chunk_by(|a, b| a.life == b.life) {
            centre(&mut rows[begin..begin + life.len()], terms + 1);
            begin += life.len();
            lives += 1;
        }
        let parameters = terms + lives + usize::from(self.knot.is_some());
        if blocks.len() <= parameters + 1 {
            return None;
        }
        let mut normal = vec![vec![0.0; terms]; terms];
        let mut right = vec![0.0; terms];
        for row in &rows {
            for i in 0..terms {
                right[i] += row[i] * row[terms];
                for j in 0..terms {
                    normal[i][j] += row[i] * row[j];
                }
            }
        }
        let inverse = invert(normal)?;
        let coefficients: Vec<f64> =
            inverse.iter().map(|line| line.iter().zip(&right).map(|(a, b)| a * b).sum()).collect();
        let residuals: Vec<f64> = rows
            .iter()
            .map(|row| row[terms] - row.iter().zip(&coefficients).map(|(x, c)| x * c).sum::<f64>())
            .collect();
        let squares = residuals.iter().map(|r| r * r).sum();
        Some(Fit { model: self, coefficients, inverse, residuals, squares, unit, parameters })
    }
}

/// Takes the mean of each column out.
fn centre(rows: &mut [Vec<f64>], columns: usize) {
    for column in 0..columns {
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / rows.len().max(1) as f64;
        rows.iter_mut().for_each(|row| row[column] -= mean);
    }
}

/// Gauss and Jordan with pivots; `None` for a matrix that is singular to working precision.
fn invert(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let scale = matrix.iter().enumerate().map(|(i, row)| row[i].abs()).fold(0.0, f64::max);
    for (i, row) in matrix.iter_mut().enumerate() {
        row.extend((0..n).map(|j| f64::from(u8::from(i == j))));
    }
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() <= 1e-10 * scale {
            return None;
        }
        matrix.swap(column, pivot);
        let by = matrix[column][column];
        matrix[column].iter_mut().for_each(|x| *x /= by);
        let line = matrix[column].clone();
        for (i, row) in matrix.iter_mut().enumerate() {
            if i != column {
                let by = row[column];
                row.iter_mut().zip(&line).for_each(|(x, y)| *x -= by * y);
            }
        }
    }
    Some(matrix.into_iter().map(|row| row[n..].to_vec()).collect())
}

impl Fit {
    /// How much of a residual is that of the block before, corrected for the terms that were fitted.
    pub(crate) fn memory(&self) -> f64 {
        let n = self.residuals.len() as f64;
        let r = autocorrelation(&self.residuals, 1);
        // Kendall (1954): the estimate is too low by (1 + 3r) / n, and each fitted term takes its share.
        (r + (1.0 + 3.0 * r.max(0.0)) * self.parameters as f64 / (2.0 * n)).clamp(0.0, MEMORY_MAX)
    }

    /// How many of the blocks are independent of each other.
    pub(crate) fn independent(&self) -> f64 {
        let memory = self.memory();
        (self.residuals.len() as f64 * (1.0 - memory) / (1.0 + memory)).max(2.0)
    }

    /// Schwarz's criterion for `independent` values; less is better. `floor` keeps a perfect fit from winning by rounding.
    pub(crate) fn criterion(&self, independent: f64, floor: f64) -> f64 {
        criterion(self.squares, self.residuals.len(), self.parameters, independent, floor)
    }

    /// Slope at the end, per second, and its standard error.
    pub(crate) fn final_slope(&self, independent: f64) -> (f64, f64) {
        let n = self.residuals.len() as f64;
        let terms = usize::from(self.model.slope) + usize::from(self.model.knot.is_some());
        let slope: f64 = self.coefficients.iter().take(terms).sum();
        let variance: f64 = self.inverse.iter().take(terms).map(|row| row.iter().take(terms).sum::<f64>()).sum();
        let left = (independent - self.parameters as f64).max(1.0);
        let noise = self.squares / n * (n / left).max(1.0);
        (slope / self.unit, (variance.max(0.0) * noise).sqrt() / self.unit)
    }

    /// Slope before the bend, per second.
    pub(crate) fn first_slope(&self) -> f64 {
        self.coefficients.first().copied().filter(|_| self.model.slope).unwrap_or(0.0) / self.unit
    }

    /// The square term, per second², with its standard error.
    pub(crate) fn curve(&self, independent: f64) -> Option<(f64, f64)> {
        let at = usize::from(self.model.slope) + usize::from(self.model.knot.is_some());
        let (value, row) = (self.coefficients.get(at)?, self.inverse.get(at)?);
        let left = (independent - self.parameters as f64).max(1.0);
        let noise = self.squares / left;
        let unit = self.unit * self.unit;
        self.model.curve.then(|| (value / unit, (row[at].max(0.0) * noise).sqrt() / unit))
    }

    /// What the day's rhythm adds at this block.
    pub(crate) fn rhythm(&self, block: &Block) -> f64 {
        if !self.model.rhythm {
            return 0.0;
        }
        let terms = self.model.terms(block, self.unit);
        let from = terms.len() - 4;
        terms[from..].iter().zip(&self.coefficients[from..]).map(|(x, c)| x * c).sum()
    }
}

/// Schwarz's criterion of any model with so many parameters.
pub(crate) fn criterion(squares: f64, n: usize, parameters: usize, independent: f64, floor: f64) -> f64 {
    let mean = (squares / n.max(1) as f64).max(floor * floor).max(f64::MIN_POSITIVE);
    independent * mean.ln() + parameters as f64 * independent.max(3.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(n: usize, value: impl Fn(f64) -> f64) -> Vec<Block> {
        let at = |i: usize| i as f64 * 3_600.0;
        (0..n).map(|i| Block { at: at(i), age: at(i), value: value(at(i)), ..Block::default() }).collect()
    }

    #[test]
    fn a_line_beside_a_rhythm_is_found_exactly() {
        let wave = |t: f64| 7.0 * (std::f64::consts::TAU * t / DAY + 1.0).sin();
        let line = blocks(60, |t| 100.0 + 0.001 * t + wave(t));
        let fit = Model { slope: true, rhythm: true, ..Model::default() }.fit(&line).unwrap();
        assert!((fit.final_slope(60.0).0 - 0.001).abs() < 1e-9 && fit.squares < 1e-9);
        assert!((fit.rhythm(&line[5]) - wave(line[5].at)).abs() < 1e-6);
    }

    #[test]
    fn a_bend_has_two_slopes() {
        let knot = 30.0 * 3_600.0;
        let bent = blocks(60, |t| 50.0 + 0.002 * t.min(knot));
        let fit = Model { slope: true, knot: Some(knot), ..Model::default() }.fit(&bent).unwrap();
        assert!((fit.first_slope() - 0.002).abs() < 1e-9 && fit.final_slope(60.0).0.abs() < 1e-9);
    }

    #[test]
    fn terms_that_cannot_be_told_apart_are_refused() {
        assert!(Model { slope: true, ..Model::default() }.fit(&blocks(2, |t| t)).is_none());
        let same_time = vec![Block { age: 5.0, value: 1.0, ..Block::default() }; 30];
        assert!(Model { slope: true, ..Model::default() }.fit(&same_time).is_none());
        assert!(Model::default().fit(&[]).is_none());
    }

    #[test]
    fn a_matrix_times_its_inverse() {
        let matrix = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, -1.0], vec![0.5, -1.0, 2.0]];
        let inverse = invert(matrix.clone()).unwrap();
        for (i, row) in matrix.iter().enumerate() {
            for j in 0..3 {
                let one: f64 = row.iter().zip(&inverse).map(|(a, line)| a * line[j]).sum();
                assert!((one - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        assert_eq!(invert(vec![vec![1.0, 2.0], vec![2.0, 4.0]]), None);
    }
}
