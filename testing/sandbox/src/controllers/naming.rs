//! Names as Kubernetes makes them: `hostnames-632524106-bbpiw`.

use serde::Serialize;
use uuid::Uuid;

/// Kubernetes' alphabet for generated names: no vowels and no look-alikes, so no bad words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// Five random letters.
pub(super) fn random_suffix() -> String {
    Uuid::new_v4()
        .as_bytes()
        .iter()
        .take(SUFFIX_LENGTH)
        .map(|byte| letter(*byte))
        .collect()
}

/// A short hash of a template (FNV-1a): equal templates belong to the same revision. Hashing
/// the JSON form is stable because k8s-openapi writes maps in order.
pub(super) fn template_hash(template: &impl Serialize) -> String {
    let text = serde_json::to_string(template).unwrap_or_default();
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_string().bytes().map(letter).collect()
}

fn letter(byte: u8) -> char {
    ALPHABET[usize::from(byte) % ALPHABET.len()] as char
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_template_has_the_same_hash_and_another_has_another() {
        assert_eq!(template_hash(&"a"), template_hash(&"a"));
        assert_ne!(template_hash(&"a"), template_hash(&"b"));
    }

    #[test]
    fn a_suffix_has_five_letters() {
        assert_eq!(random_suffix().len(), SUFFIX_LENGTH);
    }
}
