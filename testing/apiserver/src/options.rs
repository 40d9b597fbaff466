//! What a request may ask for in its query, and the refusals of what it may not.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as TOKENS};
use serde_json::json;

use super::{cause::Cause, request::Query, status::Failure, store::Key};

/// Longest name of a field manager, in bytes.
const MANAGER_LENGTH: usize = 128;

/// Checks the options of a write; `kind` is CreateOptions, UpdateOptions, PatchOptions or DeleteOptions.
pub(crate) fn check_write(query: &Query, kind: &str) -> Result<(), Failure> {
    let mut causes = Vec::new();
    if let Some(asked) = query.get("dryRun").filter(|asked| *asked != "All") {
        causes.push(Cause::unsupported("dryRun", &json!([asked]), &["All"]));
    }
    if query
        .get("fieldManager")
        .is_some_and(|manager| manager.len() > MANAGER_LENGTH)
    {
        let why = format!("Too long: may not be more than {MANAGER_LENGTH} bytes");
        causes.push(Cause::new("fieldManager", "FieldValueTooLong", why));
    }
    let levels = ["", "Ignore", "Strict", "Warn"];
    if let Some(level) = query
        .get("fieldValidation")
        .filter(|level| !levels.contains(level))
    {
        causes.push(Cause::unsupported("fieldValidation", &json!(level), &levels));
    }
    refuse(kind, causes)
}

/// Checks the options of a patch.
pub(crate) fn check_patch(query: &Query, is_apply: bool) -> Result<(), Failure> {
    check_write(query, "PatchOptions")?;
    let mut causes = Vec::new();
    if is_apply && !query.has("fieldManager") {
        let why = "Required value: is required for apply patch";
        causes.push(Cause::new("fieldManager", "FieldValueRequired", why));
    }
    if !is_apply && query.has("force") {
        causes.push(Cause::forbidden(
            "force",
            "may not be specified for non-apply patch",
        ));
    }
    refuse("PatchOptions", causes)
}

fn refuse(kind: &str, causes: Vec<Cause>) -> Result<(), Failure> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid_options(kind, &causes))
    }
}

/// Which state of the objects a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The present one, which is at least this version.
    NotOlder(u64),
    /// That of this version.
    Exactly(u64),
}

/// Which part of a list is asked for.
#[derive(Debug)]
pub(crate) struct Page {
    pub at: At,
    pub limit: usize,
    /// The last object of the page before.
    pub after: Option<Key>,
}

impl Page {
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        let asked = query.get("resourceVersion");
        let how = query.get("resourceVersionMatch");
        if how.is_some() && asked.is_none() {
            return Err(no_match(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        let version =
            version(asked).map_err(|why| Failure::bad_request(format!("invalid resource version: {why}")))?;
        let limit = match query.get("limit") {
            None | Some("0") => usize::MAX,
            Some(limit) => limit.parse().map_err(|_| {
                Failure::bad_request(format!("strconv.ParseInt: parsing {limit:?}: invalid syntax"))
            })?,
        };
        let at = if how == Some("Exact") {
            At::Exactly(version)
        } else {
            At::NotOlder(version)
        };
        let Some(token) = query.get("continue") else {
            return Ok(Self {
                at,
                limit,
                after: None,
            });
        };
        let (version, after) = read_token(token).ok_or_else(|| {
            let why = "continue key is not valid: illegal base64 data at input byte 0";
            Failure::bad_request(format!("invalid continue token: {why}"))
        })?;
        Ok(Self {
            at: At::Exactly(version),
            limit,
            after: Some(after),
        })
    }
}

/// The token that names the next page: the list's version and the last object that was shown.
pub(crate) fn token(version: u64, (namespace, name): &Key) -> String {
    TOKENS.encode(json!([version, namespace, name]).to_string())
}

fn read_token(token: &str) -> Option<(u64, Key)> {
    let (version, namespace, name) = serde_json::from_slice(&TOKENS.decode(token).ok()?).ok()?;
    Some((version, (namespace, name)))
}

fn version(text: Option<&str>) -> Result<u64, String> {
    let text = text.unwrap_or("0");
    text.parse().map_err(|_| {
        format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        )
    })
}

fn no_match(why: &str) -> Failure {
    Failure::invalid_options("ListOptions", &[Cause::forbidden("resourceVersionMatch", why)])
}

/// What a watch asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watching {
    /// The version it starts after; 0 for "any".
    pub version: u64,
    /// Whether it begins with the objects there are, and says where they end.
    pub initial: bool,
    pub bookmarks: bool,
    pub timeout: Option<Duration>,
}

impl Watching {
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        let (initial, how) = (query.flag("sendInitialEvents"), query.get("resourceVersionMatch"));
        if initial && how != Some("NotOlderThan") {
            return Err(no_match(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if how.is_some() && !query.has("sendInitialEvents") {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(no_match(why));
        }
        Ok(Self {
            version: version(query.get("resourceVersion")).map_err(Failure::internal)?,
            initial,
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout: query
                .get("timeoutSeconds")
                .and_then(|t| t.parse().ok())
                .map(Duration::from_secs),
        })
    }
}
