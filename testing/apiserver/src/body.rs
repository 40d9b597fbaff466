//! Bodies of requests, and how the real server refuses those that it cannot read.

use axum::body::{Body, Bytes, to_bytes};
use serde_json::{Value, json};

use super::{resources::Resource, status::Failure};

/// Largest body, that of the real server.
const MAX_BODY: usize = 3 << 20;
/// How much of a body is quoted in a refusal.
const QUOTED: usize = 30;
const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads a body to its end.
pub(crate) async fn read(body: Body) -> Result<Bytes, Failure> {
    to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Failure::too_large(MAX_BODY))
}

/// The object in the body of a create or an update.
pub(crate) fn object(resource: &Resource, content_type: &str, bytes: &[u8]) -> Result<Value, Failure> {
    let unrecognized = |why: &str| {
        let (kind, text) = (&resource.kind, String::from_utf8_lossy(bytes));
        let quoted = match text.char_indices().nth(QUOTED) {
            _ if text.is_empty() => "<empty>".to_owned(),
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text.into_owned(),
        };
        Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({quoted})"
        ))
    };
    let is_yaml = match content_type {
        "" | "application/json" => false,
        "application/yaml" => true,
        // `kubectl create deployment` and its like send protobuf (apimachinery, runtime/serializer/protobuf).
        "application/vnd.kubernetes.protobuf" => {
            return Err(Failure::unsupported_media_type(
                "application/json, application/yaml (this small server does not read protobuf: \
                 add `--dry-run=client -o yaml | kubectl apply -f -`)",
            ));
        }
        _ => return Err(Failure::unsupported_media_type(MEDIA_TYPES)),
    };
    let object = parse(bytes, is_yaml)
        .map_err(|why| unrecognized(&format!("couldn't get version/kind; json parse error: {why}")))?;
    // A built-in kind is known by its path.
    let nameless = resource.custom.is_some() && object["kind"].as_str().is_none_or(str::is_empty);
    if nameless && object.is_object() {
        return Err(unrecognized(&format!(
            "Object 'Kind' is missing in '{}'",
            String::from_utf8_lossy(bytes)
        )));
    }
    Ok(object)
}

/// The body of a patch; that of an apply may be YAML.
pub(crate) fn patch(bytes: &[u8], is_apply: bool) -> Result<Value, Failure> {
    parse(bytes, is_apply).map_err(|why| Failure::bad_request(format!("error decoding patch: {why}")))
}

/// The options of a deletion, which may be absent.
pub(crate) fn options(bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    parse(bytes, false).map_err(Failure::bad_request)
}

fn parse(bytes: &[u8], is_yaml: bool) -> Result<Value, String> {
    let mut value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) if !is_yaml && error.is_eof() => return Err("unexpected end of JSON input".to_owned()),
        Err(error) if !is_yaml => return Err(error.to_string()),
        Err(_) => {
            let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
            serde_saphyr::from_str(text).map_err(|e| e.to_string())?
        }
    };
    whole_numbers(&mut value);
    Ok(value)
}

/// Writes 10.0 as 10, like the real server's encoder, so that the two are the same value.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            // Up to 2^53 every whole number has one float.
            let whole = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0);
            if let Some(whole) = whole {
                *value = json!(whole as i64);
            }
        }
        _ => {}
    }
}
