use super::*;

fn parts(text: &str) -> Vec<String> {
    let (_, parts) = read(text, None, None);
    parts.iter().map(Part::describe).collect()
}
