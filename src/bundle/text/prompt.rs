//! Transcripts of a shell: which lines are commands, and what each printed.
//!
//! Known are the prompts of Kubernetes' pages (`u@pod$ CMD`, `pod $ CMD`), of images (`/ # CMD`), of
//! distributions (`[root@n1 ~]# CMD`, `root@n1:~# CMD`), the bare `$ CMD` and `# CMD`, and lines that begin
//! with kubectl, which the pages write without a prompt.

/// A command and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The command; None for what stands before the first prompt.
    pub command: Option<&'a str>,
    /// The line of the command, from 1; without one, the first line of the output.
    pub line: usize,
    /// Lines of the output with their numbers.
    pub output: Vec<(usize, &'a str)>,
}

impl Piece<'_> {
    /// Whether neither a command nor anything else is there.
    fn is_empty(&self) -> bool {
        self.command.is_none() && self.output.iter().all(|(_, line)| line.trim().is_empty())
    }
}

/// Cuts a transcript into pieces.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = vec![Piece {
        line: 1,
        ..Piece::default()
    }];
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        match prompted(line) {
            Some(command) => pieces.push(Piece {
                command: Some(command).filter(|c| !c.is_empty()),
                line: number,
                output: Vec::new(),
            }),
            None => {
                if let Some(last) = pieces.last_mut() {
                    last.output.push((number, line));
                }
            }
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Programs that support engineers run. Where little of a prompt is to be seen, as in `# cat x`, only these
/// tell a command from a comment or an answer.
const PROGRAMS: &str = " bridge busybox cat conntrack crictl curl dig docker echo exec exit for getent grep head \
    host hostname ifconfig ip ip6tables-save iptables iptables-save ipvsadm journalctl kubectl kubelet less ls nc \
    netstat nft nslookup nsenter ping ps route sh ss sudo sysctl systemctl tail telnet time timeout tracepath \
    traceroute uname wget while zcat ";

/// The command of a line with a prompt; empty where the prompt stands alone.
pub(in crate::bundle) fn prompted(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with("kubectl ") {
        return Some(line);
    }
    let end = line.find(['$', '#'])?;
    let (prompt, rest) = (line.get(..end)?.trim(), line.get(end + 1..)?);
    if !(rest.is_empty() || rest.starts_with(char::is_whitespace)) || !is_prompt(prompt) {
        return None;
    }
    let command = rest.trim();
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_known = !first.is_empty() && PROGRAMS.contains(&format!(" {} ", basename(first)));
    // `# something` alone is rather a comment.
    let is_bare = prompt.is_empty() && line.starts_with('$');
    let is_place = is_bare || prompt.contains(['@', '~', '[', '/']);
    (is_known || (is_place && (command.is_empty() || is_command(first)))).then_some(command)
}

fn is_prompt(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "@:~/._-[]() ".contains(c);
    text.len() <= 80 && text.chars().all(is_fit) && text.split_whitespace().count() <= 3
}

fn is_command(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || "./_".contains(c))
}

/// The last part of a path.
pub(super) fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The arguments that a command gives to one of some programs, and which one it is, however it is wrapped
/// (`sudo`, `kubectl exec POD --`, a loop); up to a pipe or the next command.
pub(super) fn invocation<'a>(
    command: &'a str,
    programs: &[&'static str],
) -> Option<(&'static str, Vec<&'a str>)> {
    let mut words = command.split_whitespace();
    let program = words.find_map(|word| {
        let name = basename(word.trim_start_matches(['(', '"', '\'', '`']));
        programs.iter().copied().find(|program| *program == name)
    })?;
    let mut arguments = Vec::new();
    for word in words {
        if word.starts_with(['|', ';', '&', '>', '<']) || word.starts_with("2>") {
            break;
        }
        let is_last = word.ends_with(';');
        arguments.push(word.trim_end_matches(';').trim_matches(['"', '\'', '`']));
        if is_last {
            break;
        }
    }
    Some((program, arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prompts_of_pages_images_and_distributions_are_known() {
        for (line, command) in [
            ("u@pod$ nslookup hostnames", "nslookup hostnames"),
            ("pod $ wget -qO- 10.244.0.6:9376", "wget -qO- 10.244.0.6:9376"),
            ("/ # nslookup kubernetes.default", "nslookup kubernetes.default"),
            ("[root@n1 ~]# sysctl -a", "sysctl -a"),
            ("root@lab-1:/etc# ./probe", "./probe"),
            ("bash-5.1$ curl x", "curl x"),
            ("# cat /etc/resolv.conf", "cat /etc/resolv.conf"),
            ("$ dig hostnames", "dig hostnames"),
            ("kubectl exec box -- nslookup x", "kubectl exec box -- nslookup x"),
            ("u@node$", ""),
            ("$ whoami", "whoami"),
            ("$", ""),
        ] {
            assert_eq!(prompted(line), Some(command), "{line}");
        }
    }

    #[test]
    fn output_is_no_prompt() {
        for line in [
            "# managed by the kubelet",
            "nameserver 10.0.0.10",
            "exec: \"conntrack\": executable file not found in $PATH",
            "Address:        10.0.0.10#53",
            "price $ 5",
            "$ 5",
            "#",
            "",
        ] {
            assert_eq!(prompted(line), None, "{line}");
        }
    }

    #[test]
    fn pieces_keep_their_lines() {
        let pieces = pieces("before\nu@pod$ curl a\n\nb\nu@pod$\nu@pod$ curl c\n");
        let commands: Vec<_> = pieces.iter().map(|p| (p.line, p.command)).collect();
        assert_eq!(
            commands,
            [(1, None), (2, Some("curl a")), (6, Some("curl c"))],
            "a prompt alone is no piece"
        );
        assert_eq!(pieces.get(1).unwrap().output, [(3, ""), (4, "b")]);
    }

    #[test]
    fn a_wrapped_program_is_found() {
        let of = |command| invocation(command, &["curl", "wget"]);
        assert_eq!(
            of("kubectl exec p -- curl -sS http://a:80 | head"),
            Some(("curl", vec!["-sS", "http://a:80"]))
        );
        assert_eq!(
            of("for i in 1 2; do /usr/bin/wget -O- 'a'; done"),
            Some(("wget", vec!["-O-", "a"]))
        );
        assert_eq!(of("which-curl x"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}") {
            for piece in pieces(&text) {
                let _ = piece.command.map(|c| invocation(c, &["curl"]));
            }
        }

        #[test]
        fn no_line_of_any_transcript_is_lost(lines in prop::collection::vec("(u@pod\\$ |# |)[a-z ]{0,8}", 0..12)) {
            let text = lines.join("\n");
            let kept: usize = pieces(&text).iter().map(|p| p.output.iter().filter(|(_, l)| !l.trim().is_empty()).count()).sum();
            let outputs = text.lines().filter(|l| prompted(l).is_none() && !l.trim().is_empty()).count();
            prop_assert_eq!(kept, outputs);
        }
    }
}
