//! What went wrong, for the engine: on standard error, and in the log that it reads.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::time;
use crate::cli::oci::{LogFormat, OciGlobals};

/// Where errors go besides standard error.
pub struct Log {
    path: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    /// As the options say.
    pub fn new(args: &OciGlobals) -> Log {
        Log { path: args.log.clone(), format: args.log_format }
    }

    /// Tells an error.
    pub fn error(&self, message: &str) {
        self.tell("error", message);
        let _ = writeln!(std::io::stderr().lock(), "hv-oci: {message}");
    }

    fn tell(&self, level: &str, message: &str) {
        let Some(path) = &self.path else { return };
        let now = time::now();
        let line = match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": now}).to_string(),
            LogFormat::Text => format!("time={now:?} level={level} msg={message:?}"),
        };
        // A log that cannot be written cannot be told of in the log.
        let file = File::options().append(true).create(true).open(path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
            let _ = writeln!(std::io::stderr().lock(), "hv-oci: cannot write {}: {error}", path.display());
        }
    }
}

/// Warns on standard error of what is not honoured and is no failure.
pub fn warn(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "hv-oci: warning: {message}");
}
