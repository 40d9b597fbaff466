//! What is known of a look-up while its output is read.

use std::net::IpAddr;

use svcdiag_api::LookupResult;

/// Most aliases that are kept: no resolver follows more.
const MAX_ALIASES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The name as the output has it.
    pub(super) name: Option<String>,
    pub(super) server: Option<IpAddr>,
    pub(super) addresses: Vec<IpAddr>,
    /// Whether what follows is the answer; before it, addresses are the server's.
    pub(super) in_answer: bool,
    /// Whether records of another kind were found.
    pub(super) has_records: bool,
    /// Whether it failed without a reason.
    pub(super) unexplained: bool,
    /// The name that the addresses are of.
    pub(super) found_as: Option<String>,
    /// Names that do not exist, as the output has them.
    pub(super) denied: Vec<String>,
    /// What the name is an alias for, and that, and so on.
    pub(super) aliases: Vec<String>,
    /// Whether a server said that there is no such name, and not only that it has no address.
    pub(super) is_denied: bool,
    /// Why servers could not answer, as they say it.
    pub(super) code: Option<String>,
    told: Vec<LookupResult>,
    /// Errors on the way that another server may have made good.
    trouble: Option<LookupResult>,
}

impl Seen {
    pub(super) fn name(&mut self, name: &str) {
        let name = name.trim().trim_end_matches('.');
        if self.name.is_none() && !name.is_empty() {
            self.name = Some(name.to_owned());
        }
    }

    pub(super) fn address(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Notes whose addresses follow.
    pub(super) fn found_as(&mut self, name: &str) {
        let name = name.trim().trim_end_matches('.');
        if self.found_as.is_none() && !name.is_empty() {
            self.found_as = Some(name.to_owned());
        }
    }

    /// Notes what the name is an alias for.
    pub(super) fn alias(&mut self, target: &str) {
        let target = target.trim().trim_end_matches('.');
        if !target.is_empty() && self.aliases.len() < MAX_ALIASES {
            self.aliases.push(target.to_owned());
        }
    }

    /// Notes how a question ended, in the words of the program or of a server.
    pub(super) fn why(&mut self, name: &str, why: &str) {
        self.name(name);
        let result = reason(why);
        match result {
            Some(result) => self.tell(result),
            None => self.unexplained = true,
        }
        self.code(why);
        self.denies(why);
        let name = name.trim().trim_end_matches('.');
        if result == Some(LookupResult::NotFound) && !name.is_empty() {
            self.denied.push(name.to_owned());
        }
    }

    /// Notes whether there is no such name, in the words of the program.
    pub(super) fn denies(&mut self, why: &str) {
        let lower = why.to_lowercase();
        self.is_denied |= lower.contains("nxdomain") || lower.contains("non-existent domain");
    }

    pub(super) fn tell(&mut self, result: LookupResult) {
        self.told.push(result);
    }

    /// Notes the code of an answer that is none.
    pub(super) fn code(&mut self, text: &str) {
        const CODES: [&str; 5] = ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NOTAUTH"];
        if let Some(code) = CODES.iter().find(|code| text.contains(*code)) {
            self.code = Some((*code).to_owned());
        }
    }

    /// Takes in an error that is not about the name: of the way to the servers, or of all of them.
    pub(super) fn error(&mut self, line: &str) -> bool {
        let lower = line.to_lowercase();
        if lower.contains("no servers could be reached") {
            // Older programs say "connection timed out" even where every server refused.
            let trouble = self.trouble.unwrap_or(LookupResult::TimedOut);
            self.tell(trouble);
        } else if ["communications error", "setup with", "reply from"]
            .iter()
            .any(|words| lower.contains(words))
        {
            self.code(line);
            if self.trouble != Some(LookupResult::TimedOut) {
                self.trouble = reason(&lower).or(Some(LookupResult::Failed));
            }
        } else {
            return false;
        }
        true
    }

    /// How the look-up ended; None where nothing was understood. Suffixes are tried one by one: what one
    /// server could not say outweighs that another name does not exist.
    pub(super) fn result(&self) -> Option<LookupResult> {
        if !self.addresses.is_empty() || self.has_records {
            return Some(LookupResult::Found);
        }
        let order = [
            LookupResult::TimedOut,
            LookupResult::Failed,
            LookupResult::NotFound,
        ];
        let told = order.into_iter().find(|result| self.told.contains(result));
        let unexplained = self.unexplained.then_some(LookupResult::NotFound);
        told.or(self.trouble).or(unexplained)
    }

    /// Whether that it failed without a reason is all that is known.
    pub(super) fn only_unexplained(&self) -> bool {
        self.told.is_empty() && self.trouble.is_none()
    }
}

/// How a look-up ended, in the words of resolvers and servers.
pub(super) fn reason(text: &str) -> Option<LookupResult> {
    const REASONS: [(&str, LookupResult); 21] = [
        ("timed out", LookupResult::TimedOut),
        ("no response", LookupResult::TimedOut),
        ("nxdomain", LookupResult::NotFound),
        ("non-existent domain", LookupResult::NotFound),
        ("name or service not known", LookupResult::NotFound),
        ("name does not resolve", LookupResult::NotFound),
        ("no address associated", LookupResult::NotFound),
        ("no answer", LookupResult::NotFound),
        ("servfail", LookupResult::Failed),
        ("server failed", LookupResult::Failed),
        ("server failure", LookupResult::Failed),
        ("refused", LookupResult::Failed),
        ("formerr", LookupResult::Failed),
        ("notimp", LookupResult::Failed),
        ("notauth", LookupResult::Failed),
        // EAI_AGAIN, of musl and of glibc.
        ("try again", LookupResult::Failed),
        ("temporary failure", LookupResult::Failed),
        ("unreachable", LookupResult::Failed),
        ("no route to host", LookupResult::Failed),
        ("parse error", LookupResult::Failed),
        ("operation not permitted", LookupResult::Failed),
    ];
    let lower = text.to_lowercase();
    REASONS
        .iter()
        .find(|(words, _)| lower.contains(words))
        .map(|(_, result)| *result)
}
