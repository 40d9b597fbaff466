//! How commands parse the name of the Service.

/// The name of a Service in an argument.
pub(crate) fn service_name(argument: &str) -> Result<String, String> {
    let name = argument
        .strip_prefix("service/")
        .or(argument.strip_prefix("svc/"))
        .unwrap_or(argument);
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
        return Err(format!(
            "{name:?} is not a valid name for a Service: use up to 63 lower-case letters, digits and dashes"
        ));
    }
    Ok(name.to_owned())
}
