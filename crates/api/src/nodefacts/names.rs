//! How the client Pods of the node resolve names, and what each DNS server answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, macros::string_enum};

string_enum! {
    /// The C library of a client, which decides how it resolves names.
    CLibrary {
        /// The GNU C library.
        Glibc,
        /// musl.
        Musl,
        /// None or unknown; resolves names as the GNU C library does.
        Unknown,
    }
}

string_enum! {
    /// How a lookup ended.
    LookupResult {
        /// The name has addresses.
        Found,
        /// There is no such name.
        NotFound,
        /// No server could answer, or none was willing to.
        Failed,
        /// No server answered in time.
        TimedOut,
        /// The lookup does not show what clients find: the program does not use the search list.
        Unclear,
    }
}

/// How a client Pod resolves names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    /// The Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// Its name servers.
    #[schemars(schema_with = "bounds::ips")]
    pub servers: Vec<String>,
    /// Suffixes of the search list.
    #[schemars(schema_with = "bounds::search")]
    pub search: Vec<String>,
    /// Names with at least this many dots are tried as they are first.
    pub ndots: u8,
    /// Whether it rotates through its servers (options rotate) instead of always starting with the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotate: bool,
    /// The C library of its image.
    pub c_library: CLibrary,
    /// Whether a process of the Pod was started with the Service's short name, without the namespace, in
    /// its arguments or environment: evidence that the client uses that name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_short_name: bool,
    /// The Service's names as this client resolves them, shortest first; kubernetes.default comes last.
    #[schemars(length(max = 8))]
    pub lookups: Vec<Lookup>,
}

/// A name as a client resolves it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// The name as a user writes it.
    #[schemars(length(max = 253), regex(pattern = bounds::DOMAIN))]
    pub name: String,
    /// How it ended.
    pub result: LookupResult,
    /// Error code of the servers if none could answer, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The full name that the addresses belong to: the name with the suffix of the search list that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = bounds::DOMAIN))]
    pub found_as: Option<String>,
    /// The addresses found; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::addresses")]
    pub addresses: Vec<String>,
    /// How long the answer is valid, in seconds; caching resolvers may return an older answer for that long.
    #[serde(default)]
    pub ttl_seconds: u32,
}

/// A DNS server that was queried for the Service's full name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DnsServer {
    /// The client Pod that queried it, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Its address.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub server: String,
    /// Whether it is an endpoint of cluster DNS, queried directly instead of through the Service.
    #[serde(default)]
    pub endpoint: bool,
    /// How the query for kubernetes.default ended.
    pub control: LookupResult,
    /// How the query for the Service ended.
    pub result: LookupResult,
    /// Error code if it could not answer one of them, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The domain in which it serves the cluster's names, if that is not the domain of the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = bounds::DOMAIN))]
    pub domain: Option<String>,
}
