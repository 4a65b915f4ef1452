//! Files as other writers make them, and files that are not whole.

use super::*;

const SMALL: &str = include_str!("../../../testdata/v8/small.heapsnapshot");

#[test]
fn fields_stand_where_the_header_says() {
    let (tables, warnings) = read_tables(SMALL.as_bytes()).expect("a snapshot");
    assert_eq!(warnings, []);
    assert_eq!(tables.types, [4, 3, 1, 3]);
    assert_eq!(tables.ids.iter().collect::<Vec<_>>(), [1, 3, 5, 4_294_967_297]);
    assert_eq!((0..4).map(|i| tables.sizes.get(i)).collect::<Vec<_>>(), [0, 12_345_678, 4_294_967_296, 16]);
    assert_eq!(tables.starts, [0, 1, 3, 3, 4], "the weak edge is left out");
    assert_eq!(tables.strings.get(5), "m \"quoted\"");
    assert_eq!((tables.places.as_slice(), tables.place_of.as_slice()), (&[[7, 2, 3]][..], &[(3, 0)][..]));
    // The same with six fields, another order, and blanks everywhere.
    let other = SMALL
        .replace(
            "\"type\",\"name\",\"id\",\"self_size\",\"edge_count\",\"trace_node_id\",\"detachedness\"",
            "\"id\", \"type\", \"name\", \"edge_count\", \"self_size\", \"detachedness\"",
        )
        .replace("\"node_types\":[[\"hidden\"", "\"node_types\":[\"number\",[\"hidden\"")
        .replace(
            "[4,0,1,0,2,0,0\n,3,1,3,12345678,2,0,0\n,1,0,5,4294967296,0,0,0\n,3,2,4294967297,16,1,0,0\n]",
            "[ 1 , 4,0,2,0,0, 3,3,1,2,12345678,0, 5,1,0,0,4294967296,0,\t4294967297,3,2,1,16,0 ]",
        )
        .replace("[5,3,7\n,6,3,21\n,3,4,14\n,2,5,21\n,2,5,7\n]", "[5,3,6 , 6,3,18,\r\n3,4,12,2,5,18,2,5,6]")
        .replace("[21,7,2,3]", "[18,7,2,3]");
    let (again, warnings) = read_tables(other.as_bytes()).expect("a snapshot");
    assert_eq!(warnings, []);
    assert_eq!((again.types, again.starts, again.to), (tables.types, tables.starts, tables.to));
}

#[test]
fn owned_stores_count_as_their_owners_and_what_is_retained_is_summed() {
    let (graph, warnings) = read(SMALL.as_bytes()).expect("a snapshot");
    assert_eq!(warnings, []);
    let global = graph.by_id(3).expect("global");
    assert_eq!(graph.shallow_bytes(global), 12_345_678 + 4_294_967_296);
    assert_eq!(graph.retained_bytes(global), 12_345_678 + 4_294_967_296 + 16);
    assert_eq!(graph.total_bytes(), graph.retained_bytes(graph.root()));
    assert_eq!(graph.shallow_bytes(graph.by_id(5).expect("elements")), 0);
}

#[test]
fn a_file_that_ends_early_is_an_error_at_every_byte() {
    for end in 1..SMALL.len() {
        match read(&SMALL.as_bytes()[..end]) {
            Err(V8Error::Truncated { offset, .. }) => assert_eq!(offset, end as u64, "cut at {end}"),
            other => panic!("cut at {end}: {other:?}"),
        }
    }
    assert!(matches!(read(&b""[..]), Err(V8Error::Empty)));
}

#[test]
fn pieces_of_any_length_are_read_alike() {
    struct Pieces<'a>(&'a [u8], usize);
    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(out.len());
            out[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }
    let whole = read_tables(SMALL.as_bytes()).expect("a snapshot").0;
    for length in 1..40 {
        let pieces = read_tables(Pieces(SMALL.as_bytes(), length)).expect("a snapshot").0;
        assert_eq!((&pieces.to, &pieces.types), (&whole.to, &whole.types));
        assert_eq!(pieces.strings.get(5), whole.strings.get(5));
    }
}

#[test]
fn damage_is_named_with_its_place() {
    for (from, to, said) in [
        ("\"id\",", "\"key\",", "the header is not one of a heap snapshot: no field \"id\""),
        ("4,0,1,0,2", "9,0,1,0,2", "in nodes: a type of node that the header does not name"),
        ("12345678", "18446744073709551615", "in nodes: sizes beyond any memory"),
        ("4,0,1,0,2", "4,0,-1,0,2", "in nodes: expected non-negative integers in whole records"),
        ("4,0,1,0,2", "4,0,1.5,0,2", "in nodes: expected non-negative integers in whole records"),
        ("4,0,1,0,2", "4,0,99999999999999999999999,0,2", "in nodes: expected non-negative integers in whole records"),
        ("16,1,0,0\n]", "16,1,0]", "in nodes: expected non-negative integers in whole records"),
        ("\"strings\":", "\"strongs\":", "no `strings`"),
    ] {
        let error = read(SMALL.replacen(from, to, 1).as_bytes()).expect_err(to).to_string();
        assert!(error.contains(said), "{to}: {error}");
    }
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    for (from, to, warning) in [
        ("\"node_count\":4", "\"node_count\":5", Warning::Count { what: "nodes", said: 5, found: 4 }),
        ("2,5,21\n", "2,5,22\n", Warning::BadEdges(1)),
        ("2,5,21\n", "2,5,28\n", Warning::BadEdges(1)),
        ("2,5,21\n", "2,5,18446744073709551615\n", Warning::BadEdges(1)),
        ("16,1,0,0", "16,3,0,0", Warning::MissingEdges(2)),
        ("16,1,0,0", "16,0,0,0", Warning::SpareEdges(1)),
        ("\"samples\":[]", "\"other\":{\"a\":[1,\"}\"]}", Warning::Section("other".into())),
        // A second header must not explain what the first one did.
        (
            "\"samples\":[]",
            "\"snapshot\":{\"meta\":{\"node_types\":[[\"hidden\"]]}},\"nodes\":[1]",
            Warning::Section("snapshot".into()),
        ),
        ("quoted\\\"\"]}", "quoted\\\"\"]} x", Warning::Trailing),
        ("[5,3,7\n", "[5,3,0\n", Warning::Unreachable(3)),
    ] {
        let (_, warnings) = read(SMALL.replacen(from, to, 1).as_bytes()).expect(to);
        assert_eq!(warnings.first(), Some(&warning), "{to}: {warnings:?}");
    }
}

#[test]
fn numbers_of_every_length_are_read_whatever_was_expected() {
    let powers = (0..20).map(|digits| 10_u64.pow(digits));
    let numbers: Vec<u64> = powers.flat_map(|power| [power - 1, power]).chain([u64::MAX, 7]).collect();
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    for separator in [",", "\n,", ",\n", " ,", " \t,\r\n "] {
        let text = format!("[{}]", words.join(separator));
        for short in 0..4 {
            let mut found = Vec::new();
            let read = Scanner::new(text.as_bytes()).records::<2>(short, |record| {
                found.extend(record);
                Ok(())
            });
            assert!(read.is_ok(), "{read:?} of {text}");
            assert_eq!(found, numbers, "{separator:?}, {short}");
        }
    }
}
