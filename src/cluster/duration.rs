//! Durations in arguments, written as for kubectl.

use std::time::Duration;

/// More than anybody waits for, and little enough to be added to the present time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration with its unit, or 0.
pub(crate) fn duration(argument: &str) -> Result<Duration, String> {
    if argument == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Result<jiff::SignedDuration, _> = argument.parse();
    let given = parsed.ok().and_then(|duration| Duration::try_from(duration).ok());
    let given = given.map(|duration| duration.min(LONGEST));
    given.ok_or_else(|| "use a number with a unit, for example 30s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_unless_it_is_0() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("100000000h"), Ok(LONGEST));
        for typed in ["", "90", "-1s", "soon"] {
            assert!(duration(typed).unwrap_err().contains("30s"), "{typed}");
        }
    }
}
