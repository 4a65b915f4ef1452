//! Decodes a snapshot with the crate v8-heap-parser and prints its classes, as its own example does.

fn main() {
    let path = std::env::args().nth(1).expect("a file");
    let file = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(path).expect("open"));
    let graph = v8_heap_parser::decode_reader(file).expect("a snapshot");
    let groups = graph.get_class_groups(false);
    println!("{} nodes, {} classes", graph.iter().count(), groups.len());
}
