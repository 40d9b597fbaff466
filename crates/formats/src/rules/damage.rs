//! Texts that are damaged at random, for the property tests of what reads them. Whole captures are damaged in the
//! tests of the fuzz targets.

use proptest::prelude::*;

/// One of some texts with two characters of it replaced.
pub(super) fn damaged_word(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let of = (
        prop::sample::select(texts),
        any::<prop::sample::Index>(),
        "\\PC{0,3}",
    );
    of.prop_map(|(text, at, with)| {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..(at + 2).min(characters.len()), with.chars());
        characters.into_iter().collect()
    })
}
