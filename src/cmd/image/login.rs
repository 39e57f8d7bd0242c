//! `hv login`: tries a user and a password at a registry, and keeps them.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use hv_image::registry::auth::Source;
use hv_image::registry::credentials::Kept;
use hv_image::registry::{Credentials, Keyring, Registries, login};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::print;
use super::registries::{failed, registry, settings};
use crate::cli::image::LoginArgs;
use crate::error::{self, Failure, Result};

/// The longest password: tokens of some clouds have a few thousand bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Logs in.
///
/// # Errors
/// There is nobody to ask, the registry does not take them, or they cannot be kept.
pub fn run(args: LoginArgs) -> Result<u8> {
    let settings = settings(&args.connection, |settings| registry(args.registry.as_deref(), settings))?;
    let host = registry(args.registry.as_deref(), &settings)?;
    if args.password_stdin && args.user.is_none() {
        return Err(Failure::refused("--password-stdin needs --user: standard input has only the password"));
    }
    let user = match args.user {
        Some(user) => user,
        None => ask("User: ", false)?,
    };
    let password = if args.password_stdin { from_stdin()? } else { ask("Password: ", true)? };
    if user.is_empty() || password.is_empty() || user.contains(':') || has_control(&user) {
        return Err(Failure::refused(
            "a user (without `:`) and a password are needed, and one is empty or wrong",
        ));
    }
    let given = Source::Given(Some(Credentials::new(&user, &password)));
    let registries = Registries::new(settings, given);
    login::check(&registries, &host).map_err(|error| match error.status() {
        Some(401 | 403) => {
            Failure::from(error).hint("the user or the password is not right; nothing was kept")
        }
        _ => failed(error, &host),
    })?;
    match Keyring::of_this_user().keep(&host, &user, &password)? {
        Kept::Helper(name) => print(&format!("logged in to {host}; docker-credential-{name} keeps it\n"))?,
        Kept::File(path) => {
            print(&format!("logged in to {host}\n"))?;
            error::say(format_args!(
                "the password is in {}, not encrypted; `credsStore` in it names a helper that keeps it better",
                path.display()
            ));
        }
    }
    Ok(0)
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text);
    read.map_err(|source| Failure::new("cannot read the password from standard input", source))?;
    // What `echo` and editors put behind it is not part of it.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(question: &str, hidden: bool) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::refused("there is no terminal to ask for the user and the password")
            .hint("give them with --user NAME --password-stdin"));
    }
    let failed = |source| Failure::new("cannot ask for the user and the password", source);
    let mut stderr = io::stderr();
    write!(stderr, "{question}").and_then(|()| stderr.flush()).map_err(failed)?;
    let hiding = if hidden { Some(Hidden::begin().map_err(failed)?) } else { None };
    let mut line = String::new();
    let read = stdin.lock().take(MAX_PASSWORD).read_line(&mut line);
    if hiding.is_some() {
        let _ = writeln!(stderr);
    }
    drop(hiding);
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What is typed is not shown for as long as this lives.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Hidden> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
