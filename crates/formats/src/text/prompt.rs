//! Transcripts of a shell: which lines are commands, and what each printed.
//!
//! Known are the prompts of Kubernetes' pages (`u@pod$ CMD`, `pod $ CMD`), of images (`/ # CMD`), of
//! distributions (`[root@n1 ~]# CMD`, `root@n1:~# CMD`), the bare `$ CMD` and `# CMD`, those of other shells
//! (`me@mac ~ % CMD`, `➜  ~ CMD`, `PS C:\> CMD`), and lines that begin with kubectl, which the pages write without
//! a prompt. Whoever leaves out all prompts has commands recognized by the programs that a text is about.

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
    pieces_of(text, &[])
}

/// Cuts a transcript of some programs into pieces. Where no line has a prompt, those that begin with one of the
/// programs are commands.
#[must_use]
pub fn pieces_of<'a>(text: &'a str, programs: &[&'static str]) -> Vec<Piece<'a>> {
    let mut pieces = vec![Piece {
        line: 1,
        ..Piece::default()
    }];
    let has_prompts = text.lines().any(|line| prompted(line).is_some());
    let bare = |line: &'a str| bare(line, programs).filter(|_| !has_prompts);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        match prompted(line).or_else(|| bare(line)) {
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
const PROGRAMS: &str = " bridge busybox cat conntrack crictl curl dig docker echo ethtool exec exit for getent grep head \
    host hostname ifconfig ip ip6tables-save iptables iptables-save ipvsadm journalctl kubectl kubelet less ls nc \
    ncat netstat nft nslookup nsenter oc ping podman ps route sh ss sudo sysctl systemctl tail telnet time timeout \
    tracepath traceroute uname wget while zcat ";

/// Words before a program that run it.
const WRAPPERS: [&str; 6] = ["time", "sudo", "timeout", "for", "while", "watch"];

/// The command of a line with a prompt; empty where the prompt stands alone.
pub fn prompted(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with("kubectl ") {
        return Some(line);
    }
    of_unix(line)
        .or_else(|| of_windows(line))
        .or_else(|| of_known(line))
}

/// The command behind `$` or `#`.
fn of_unix(line: &str) -> Option<&str> {
    let end = line.find(['$', '#'])?;
    let (prompt, rest) = (line.get(..end)?.trim(), line.get(end + 1..)?);
    if !(rest.is_empty() || rest.starts_with(char::is_whitespace)) || !is_prompt(prompt) {
        return None;
    }
    let command = rest.trim();
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_known = is_program(first);
    // `# something` alone is rather a comment.
    let is_bare = prompt.is_empty() && line.starts_with('$');
    let is_place = is_bare || prompt.contains(['@', '~', '[', '/']);
    (is_known || (is_place && (command.is_empty() || is_command(first)))).then_some(command)
}

fn is_prompt(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "@:~/._-[]() ".contains(c);
    // Of a user without an entry in passwd, as many containers have it.
    let text = text.strip_prefix("I have no name!").unwrap_or(text);
    text.len() <= 80 && text.chars().all(is_fit) && text.split_whitespace().count() <= 3
}

/// The command behind `PS C:\Users\me>` or `C:\>`.
fn of_windows(line: &str) -> Option<&str> {
    let (place, command) = line.split_once('>')?;
    let is_drive = |text: &str| text.get(1..3) == Some(":\\");
    let is_place = match place.strip_prefix("PS ") {
        Some(place) => is_drive(place) || place.starts_with('/'),
        None => is_drive(place),
    };
    let command = command.trim();
    (is_place && (command.is_empty() || is_command(command))).then_some(command)
}

/// A command of a known program behind the prompt of another shell: `me@mac ~ % CMD`, `me@host:~> CMD`,
/// `➜  ~ git:(main) CMD`, `❯ CMD`.
fn of_known(line: &str) -> Option<&str> {
    let mut at = 0;
    for word in line.split(' ').take_while(|word| !is_program(word)) {
        at += word.len() + 1;
    }
    let prompt = line.get(..at)?.trim_end();
    let is_fit = prompt.chars().count() <= 80 && !prompt.contains(['<', '"', '=', '|']);
    let (sign, before) = (
        prompt.chars().last()?,
        prompt.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()),
    );
    let is_number = || {
        before
            .split_whitespace()
            .last()
            .is_some_and(|word| word.parse::<f64>().is_ok())
    };
    let is_end = match sign {
        '%' => !is_number(),
        '>' | '$' | '#' => prompt.contains('@'),
        sign => "❯λ»›▶✗⇒".contains(sign) || prompt.starts_with('➜'),
    };
    line.get(at..).filter(|_| is_fit && is_end)
}

fn is_program(word: &str) -> bool {
    !word.is_empty() && PROGRAMS.contains(&format!(" {} ", basename(word)))
}

/// A line that is a command of one of some programs, with an argument, and has no prompt.
fn bare<'a>(line: &'a str, programs: &[&'static str]) -> Option<&'a str> {
    let line = line.trim();
    let (first, _) = line.split_once(char::is_whitespace)?;
    let is_one = !first.contains(':') && programs.contains(&basename(first));
    let is_wrapped = || WRAPPERS.contains(&first) && invocation(line, programs).is_some();
    (is_one || is_wrapped()).then_some(line)
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
pub fn invocation<'a>(command: &'a str, programs: &[&'static str]) -> Option<(&'static str, Vec<&'a str>)> {
    let called = |mut words: std::str::SplitWhitespace<'a>| {
        let program = words.find_map(|word| named(word, programs))?;
        Some((program, arguments(words)))
    };
    let runs_elsewhere = |head: &str| {
        let runners = ["kubectl", "oc", "k", "docker", "podman", "crictl", "nerdctl"];
        head.split_whitespace()
            .any(|word| runners.contains(&basename(word)))
    };
    let Some((head, inner)) = command
        .split_once(" -- ")
        .filter(|(head, _)| runs_elsewhere(head))
    else {
        return called(command.split_whitespace());
    };
    // `kubectl run curl --image=curlimages/curl -- -m 5 URL`: the image knows its program.
    let first = inner.split_whitespace().next()?;
    match first.starts_with('-') || first.contains("://") {
        true => {
            called(head.split_whitespace()).map(|(program, _)| (program, arguments(inner.split_whitespace())))
        }
        false => called(inner.split_whitespace()),
    }
}

/// The program that a word names, be it as an image's or a Pod's.
fn named(word: &str, programs: &[&'static str]) -> Option<&'static str> {
    let word = word.strip_prefix("--image=").unwrap_or(word);
    let name = basename(word.trim_start_matches(['(', '"', '\'', '`']));
    let name = name.split(['@', ':']).next().unwrap_or(name);
    programs.iter().copied().find(|program| *program == name)
}

/// Words up to a pipe or the next command.
fn arguments<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
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
    arguments
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
            ("me@mac ~ % curl x", "curl x"),
            ("[me@host ~]% curl x", "curl x"),
            ("% curl x", "curl x"),
            ("me@host:~> curl x", "curl x"),
            ("➜  ~ curl x", "curl x"),
            ("➜  app git:(main) ✗ kubectl get pods", "kubectl get pods"),
            ("❯ curl x", "curl x"),
            ("PS C:\\Users\\me> curl x", "curl x"),
            ("C:\\>curl x", "curl x"),
            ("I have no name!@web-0:/$ curl x", "curl x"),
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
            "100% curl of it",
            "<p>me@host.example</p> curl x",
            "> GET /curl HTTP/1.1",
            "curl x",
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
        for command in [
            "kubectl run t --rm -it --image=curlimages/curl -- curl -m 5 a",
            "kubectl run curl --image=curlimages/curl:8.5.0 -- -m 5 a",
            "kubectl exec curl -- sh -c 'curl -m 5 a'",
            "docker run --rm curlimages/curl -m 5 a",
        ] {
            assert_eq!(of(command), Some(("curl", vec!["-m", "5", "a"])), "{command}");
        }
        assert_eq!(
            of("kubectl exec curl -- nslookup a"),
            None,
            "that is the name of a Pod"
        );
    }

    #[test]
    fn without_any_prompt_the_programs_of_the_text_begin_commands() {
        let commands = |text| -> Vec<_> { pieces_of(text, &["curl"]).iter().map(|p| p.command).collect() };
        assert_eq!(
            commands("curl a\nb\ntime curl -s c\nd\n"),
            [Some("curl a"), Some("time curl -s c")]
        );
        assert_eq!(commands("curl: (7) Failed to connect\n"), [None]);
        assert_eq!(
            commands("$ curl a\ncurl is a program\n"),
            [Some("curl a")],
            "where others have prompts, it is output"
        );
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
