//! The shells that can be asked to run commands, and how each is asked.
//!
//! A session's shell is an ordinary interactive one with one start-up file more: it makes the
//! shell write [marks](crate::marks) before each prompt. To run a command, the session writes it
//! into a file and types, at the prompt, a line that reads that file into the shell. So the
//! command runs in the shell itself: what it changes, the next one finds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use crate::marks::NUMBER;

/// What kind of shell a program is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Bash,
    /// dash, ash, ksh and whatever is called `sh`.
    Posix,
    Zsh,
    Fish,
    /// Anything else: it can be typed to, not asked.
    Other,
}

/// A command as the shell is to run it.
#[derive(Debug)]
pub struct Script<'a> {
    /// Its number in the session.
    pub number: u64,
    pub text: &'a str,
    /// Where standard output and error go; the terminal where none is given.
    pub stdout: Option<&'a Path>,
    pub stderr: Option<&'a Path>,
    /// Whether `stderr` is a terminal, whose stream needs marks of its own.
    pub stderr_is_terminal: bool,
    /// Where it runs, for this command only.
    pub directory: Option<&'a str>,
    /// Variables for this command only.
    pub environment: &'a BTreeMap<String, String>,
    /// The secret of the session's marks.
    pub secret: &'a str,
}

/// The directory of a session's files, inside the session's shell.
const VARIABLE: &str = "__hoody";

impl Flavour {
    pub fn of(program: &Path) -> Flavour {
        let name = program
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        match name {
            "bash" => Flavour::Bash,
            "sh" | "dash" | "ash" | "ksh" | "mksh" | "busybox" => Flavour::Posix,
            "zsh" => Flavour::Zsh,
            "fish" => Flavour::Fish,
            _ => Flavour::Other,
        }
    }

    /// Whether commands can be run in it.
    pub fn takes_commands(self) -> bool {
        self != Flavour::Other
    }

    /// The line that has it run the command file of this number. It begins with a space, which
    /// keeps it out of the histories of shells.
    pub fn trigger(self, number: u64) -> String {
        match self {
            Flavour::Fish => format!(" source \"${VARIABLE}/{number}\""),
            _ => format!(" . \"${VARIABLE}/{number}\""),
        }
    }

    /// Its arguments, given the directory of its start-up files.
    pub fn arguments(self, directory: &Path) -> Vec<OsString> {
        let rc = directory.join("rc");
        match self {
            Flavour::Bash => vec!["--rcfile".into(), rc.into(), "-i".into()],
            Flavour::Posix | Flavour::Zsh => vec!["-i".into()],
            Flavour::Fish => {
                let mut source = OsString::from("source ");
                source.push(single_quoted(&rc.to_string_lossy(), Flavour::Fish));
                vec!["--init-command".into(), source]
            }
            Flavour::Other => Vec::new(),
        }
    }

    /// The variables that make it read its start-up files.
    pub fn environment(self, directory: &Path) -> Vec<(String, String)> {
        match self {
            Flavour::Posix => vec![(
                "ENV".to_owned(),
                directory.join("rc").to_string_lossy().into_owned(),
            )],
            Flavour::Zsh => vec![(
                "ZDOTDIR".to_owned(),
                directory.to_string_lossy().into_owned(),
            )],
            _ => Vec::new(),
        }
    }

    /// Its start-up files: name and content.
    pub fn files(self, directory: &Path, secret: &str) -> Vec<(&'static str, String)> {
        let directory = single_quoted(&directory.to_string_lossy(), self);
        let mark = |words: &str| format!("\\033]{NUMBER};{secret};{words}\\007");
        match self {
            Flavour::Bash => {
                let prompt = mark("P;%s");
                let accepted = format!("\\e]{NUMBER};{secret};C\\a");
                vec![(
                    "rc",
                    format!(
                        "[ -r /etc/profile ] && . /etc/profile\n\
                     if [ -r ~/.bash_profile ]; then . ~/.bash_profile\n\
                     elif [ -r ~/.bash_login ]; then . ~/.bash_login\n\
                     elif [ -r ~/.profile ]; then . ~/.profile\n\
                     elif [ -r ~/.bashrc ]; then . ~/.bashrc\n\
                     fi\n\
                     {VARIABLE}={directory}\n\
                     __hoody_status() {{ return \"$1\"; }}\n\
                     __hoody_prompt() {{ local status=$?; printf '{prompt}' \"$status\"; return $status; }}\n\
                     HISTCONTROL=${{HISTCONTROL:+$HISTCONTROL:}}ignorespace\n\
                     PROMPT_COMMAND=\"__hoody_prompt${{PROMPT_COMMAND:+;$PROMPT_COMMAND}}\"\n\
                     PS0='{accepted}'\"${{PS0-}}\"\n"
                    ),
                )]
            }
            Flavour::Posix => {
                let prompt = format!("\u{1b}]{NUMBER};{secret};P;$?\u{7}");
                vec![(
                    "rc",
                    format!(
                        "unset ENV\n\
                     [ -r /etc/profile ] && . /etc/profile\n\
                     [ -r ~/.profile ] && . ~/.profile\n\
                     {VARIABLE}={directory}\n\
                     __hoody_status() {{ return \"$1\"; }}\n\
                     PS1='{prompt}'\"${{PS1-}}\"\n"
                    ),
                )]
            }
            Flavour::Zsh => {
                let prompt = mark("P;%s");
                let accepted = mark("C");
                let user = |file: &str| format!("[[ -r ~/{file} ]] && source ~/{file}\n");
                vec![
                    (
                        ".zshenv",
                        user(".zshenv") + &format!("ZDOTDIR={directory}\n"),
                    ),
                    (
                        ".zshrc",
                        format!(
                            "unset ZDOTDIR\n\
                         [[ -r /etc/profile ]] && emulate sh -c '. /etc/profile'\n\
                         {}{}\
                         {VARIABLE}={directory}\n\
                         __hoody_status() {{ return \"$1\" }}\n\
                         __hoody_prompt() {{ printf '{prompt}' $? }}\n\
                         __hoody_accepted() {{ printf '{accepted}' }}\n\
                         setopt hist_ignore_space\n\
                         precmd_functions=(__hoody_prompt $precmd_functions)\n\
                         preexec_functions+=(__hoody_accepted)\n",
                            user(".zprofile"),
                            user(".zshrc"),
                        ),
                    ),
                ]
            }
            Flavour::Fish => {
                let prompt = mark("P;%s");
                let accepted = mark("C");
                vec![(
                    "rc",
                    format!(
                        "set -g {VARIABLE} {directory}\n\
                     function __hoody_status; return $argv[1]; end\n\
                     function __hoody_prompt --on-event fish_prompt; printf '{prompt}' $status; end\n\
                     function __hoody_accepted --on-event fish_preexec; printf '{accepted}'; end\n"
                    ),
                )]
            }
            Flavour::Other => Vec::new(),
        }
    }

    /// The command file.
    pub fn script(self, script: &Script<'_>) -> String {
        match self {
            Flavour::Fish => fish(script),
            flavour => posix(script, flavour),
        }
    }
}

/// Text as one word of a shell.
pub fn single_quoted(text: &str, flavour: Flavour) -> String {
    match flavour {
        Flavour::Fish => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        _ => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn redirections(script: &Script<'_>, flavour: Flavour) -> String {
    let mut text = String::new();
    for (operator, path) in [(" >", script.stdout), (" 2>", script.stderr)] {
        if let Some(path) = path {
            text += operator;
            text += &single_quoted(&path.to_string_lossy(), flavour);
        }
    }
    text
}

fn posix(script: &Script<'_>, flavour: Flavour) -> String {
    let Script { number, secret, .. } = script;
    let quoted = |text: &str| single_quoted(text, flavour);
    let redirections = redirections(script, flavour);
    let command = quoted(script.text);
    let mut before = vec![
        "__hoody_s=$?".to_owned(),
        // A line that was typed twice runs once.
        format!("[ \"${{__hoody_n-}}\" != {number} ] || return \"$__hoody_s\"; __hoody_n={number}"),
        format!("printf '\\033]{NUMBER};{secret};B;{number}\\007' >/dev/tty"),
    ];
    let mut after = vec!["__hoody_s=$?".to_owned()];
    for (name, value) in script.environment {
        before.push(format!(
            "__hoody_h_{name}=${{{name}+x}} __hoody_v_{name}=${{{name}-}}"
        ));
        before.push(format!("export {name}={}", quoted(value)));
    }
    if let Some(directory) = script.directory {
        // Only a command that stays where it was sent is brought back.
        before.push("__hoody_d=$PWD".to_owned());
        before.push(format!(
            "if {{ CDPATH= cd -- {} >/dev/null; }}{redirections}; then __hoody_t=$PWD",
            quoted(directory)
        ));
        after.push(
            "[ \"$PWD\" != \"$__hoody_t\" ] || CDPATH= cd -- \"$__hoody_d\" >/dev/null".to_owned(),
        );
        after.push("else __hoody_s=1; fi".to_owned());
    }
    for name in script.environment.keys() {
        after.push(format!(
            "if [ -n \"$__hoody_h_{name}\" ]; then {name}=$__hoody_v_{name}; else unset {name}; fi; unset __hoody_h_{name} __hoody_v_{name}"
        ));
    }
    if flavour == Flavour::Bash {
        after.push(format!("builtin history -s -- {command}"));
    }
    if let Some(stderr) = script.stderr.filter(|_| script.stderr_is_terminal) {
        let stderr = quoted(&stderr.to_string_lossy());
        after.push(format!(
            "printf '\\033]{NUMBER};{secret};E;{number};%s\\007' \"$__hoody_s\" >{stderr}"
        ));
    }
    after.push(format!(
        "printf '\\033]{NUMBER};{secret};E;{number};%s\\007' \"$__hoody_s\" >/dev/tty"
    ));
    after.push("return \"$__hoody_s\"\n".to_owned());
    // The command begins on the first line, so that what the shell says of lines is true.
    let run = format!("{{ __hoody_status \"$__hoody_s\"; eval {command}; }}{redirections}");
    format!("{}; {run}\n{}", before.join("; "), after.join("\n"))
}

fn fish(script: &Script<'_>) -> String {
    let Script { number, secret, .. } = script;
    let quoted = |text: &str| single_quoted(text, Flavour::Fish);
    let redirections = redirections(script, Flavour::Fish);
    let mut file = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = file.write_fmt(text);
        file.push('\n');
    };
    line(format_args!("set -g __hoody_s $status"));
    line(format_args!(
        "test \"$__hoody_n\" = {number}; and return $__hoody_s"
    ));
    line(format_args!("set -g __hoody_n {number}"));
    line(format_args!(
        "printf '\\033]{NUMBER};{secret};B;{number}\\007' >/dev/tty"
    ));
    for (name, value) in script.environment {
        line(format_args!(
            "set -q {name}; and set -g __hoody_v_{name} ${name}"
        ));
        line(format_args!("set -gx {name} {}", quoted(value)));
    }
    line(format_args!("set -g __hoody_t"));
    if let Some(directory) = script.directory {
        line(format_args!("set -g __hoody_d $PWD"));
        line(format_args!(
            "if builtin cd -- {}{redirections}",
            quoted(directory)
        ));
        line(format_args!("set -g __hoody_t $PWD"));
    }
    line(format_args!(
        "begin; __hoody_status $__hoody_s; eval {}; end{redirections}",
        quoted(script.text)
    ));
    line(format_args!("set -g __hoody_s $status"));
    if script.directory.is_some() {
        line(format_args!(
            "test \"$PWD\" != \"$__hoody_t\"; or builtin cd -- $__hoody_d"
        ));
        line(format_args!("else; set -g __hoody_s 1; end"));
    }
    for name in script.environment.keys() {
        line(format_args!(
            "if set -q __hoody_v_{name}; set -gx {name} $__hoody_v_{name}; set -e __hoody_v_{name}; else; set -e {name}; end"
        ));
    }
    if let Some(stderr) = script.stderr.filter(|_| script.stderr_is_terminal) {
        let stderr = quoted(&stderr.to_string_lossy());
        line(format_args!(
            "printf '\\033]{NUMBER};{secret};E;{number};%s\\007' $__hoody_s >{stderr}"
        ));
    }
    line(format_args!(
        "printf '\\033]{NUMBER};{secret};E;{number};%s\\007' $__hoody_s >/dev/tty"
    ));
    line(format_args!("return $__hoody_s"));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_quoting() {
        for text in ["it's", "a\\'b", "$(x) `y` \"z\"\n!", "'''"] {
            for shell in ["bash", "dash"] {
                let output = std::process::Command::new(shell)
                    .arg("-c")
                    .arg(format!("printf %s {}", single_quoted(text, Flavour::Posix)))
                    .output()
                    .unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{shell}");
            }
        }
        assert_eq!(single_quoted("a\\'b", Flavour::Fish), "'a\\\\\\'b'");
    }
}
