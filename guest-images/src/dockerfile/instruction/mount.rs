//! `RUN --mount` and `RUN --network`.

/// What a RUN finds at a place of its root while it runs; nothing of it gets into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMount {
    /// Files of the context, a stage or an image; what is written to them is lost.
    Bind {
        /// A stage or image; None: the context.
        from: Option<String>,
        /// Which directory or file of it.
        source: String,
        /// Where.
        target: String,
        /// Written to, and lost.
        writable: bool,
    },
    /// A directory that is kept for later builds.
    Cache {
        /// Which; by default its target.
        id: String,
        /// Where.
        target: String,
        /// Cannot be written.
        read_only: bool,
        /// Permissions of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
        /// One build at a time uses it.
        locked: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Bytes at most.
        size: Option<u64>,
    },
    /// A file that the user gives with `--secret`.
    Secret {
        /// Which.
        id: String,
        /// Where; None: `/run/secrets/ID`, unless it is a variable.
        target: Option<String>,
        /// The variable that holds it.
        env: Option<String>,
        /// Without it the step fails.
        required: bool,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What network a RUN has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// As the build.
    Default,
    /// None but loopback.
    None,
    /// The host's.
    Host,
}

impl RunNetwork {
    pub(super) fn parse(text: &str) -> Result<RunNetwork, String> {
        match text {
            "default" => Ok(RunNetwork::Default),
            "none" => Ok(RunNetwork::None),
            "host" => Ok(RunNetwork::Host),
            other => Err(format!("RUN --network={}: it is default, none or host", other.escape_debug())),
        }
    }
}

/// The options of a mount, each taken once it has been understood.
struct Options(Vec<(String, String)>);

impl Options {
    fn take(&mut self, names: &[&str]) -> Option<String> {
        let at = self.0.iter().rposition(|(name, _)| names.contains(&name.as_str()))?;
        let value = self.0.remove(at).1;
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
        Some(value)
    }

    fn switch(&mut self, names: &[&str]) -> Result<Option<bool>, String> {
        match self.take(names).as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(format!("--mount: {} is either true or false", names[0])),
        }
    }

    fn number(&mut self, name: &str, radix: u32, default: u32) -> Result<u32, String> {
        self.take(&[name]).map_or(Ok(default), |text| {
            u32::from_str_radix(&text, radix)
                .map_err(|_| format!("--mount: {name}={} is no number", text.escape_debug()))
        })
    }

    fn target(&mut self) -> Result<String, String> {
        self.take(&["target", "dst", "destination"]).ok_or_else(|| "--mount needs target=PATH".into())
    }
}

impl RunMount {
    pub(super) fn parse(text: &str) -> Result<RunMount, String> {
        let option = |part: &str| match part.split_once('=') {
            Some((name, value)) => (name.trim().to_ascii_lowercase(), value.trim_matches('"').to_owned()),
            None => (part.trim().to_ascii_lowercase(), String::new()),
        };
        let mut options = Options(text.split(',').map(option).collect());
        let kind = options.take(&["type"]).unwrap_or_else(|| "bind".into());
        let mount = match kind.as_str() {
            "bind" => RunMount::bind(&mut options)?,
            "cache" => RunMount::cache(&mut options)?,
            "tmpfs" => {
                let target = options.target()?;
                let size = options.take(&["size"]).map(|size| bytes(&size)).transpose()?;
                RunMount::Tmpfs { target, size }
            }
            "secret" => RunMount::secret(&mut options)?,
            "ssh" => {
                return Err(
                    "--mount=type=ssh: hv lends no agent to a build; use type=secret with a key".into()
                );
            }
            other => {
                let other = other.escape_debug();
                return Err(format!("--mount=type={other}: it is bind, cache, tmpfs or secret"));
            }
        };
        match options.0.first() {
            Some((name, _)) => Err(format!("--mount=type={kind} has no option `{}`", name.escape_debug())),
            None => Ok(mount),
        }
    }

    fn bind(options: &mut Options) -> Result<RunMount, String> {
        let read_only = options.switch(&["ro", "readonly"])?;
        let writable = options.switch(&["rw", "readwrite"])?;
        Ok(RunMount::Bind {
            from: options.take(&["from"]),
            source: options.take(&["source", "src"]).unwrap_or_else(|| "/".into()),
            target: options.target()?,
            writable: writable.unwrap_or(false) && read_only != Some(true),
        })
    }

    fn cache(options: &mut Options) -> Result<RunMount, String> {
        let target = options.target()?;
        let read_only = options.switch(&["ro", "readonly"])?;
        options.switch(&["rw", "readwrite"])?;
        if options.take(&["from"]).is_some() || options.take(&["source", "src"]).is_some() {
            return Err(
                "--mount=type=cache,from=…: hv's caches begin empty; leave out from and source".into()
            );
        }
        let locked = match options.take(&["sharing"]).as_deref() {
            None | Some("shared") => false,
            Some("locked" | "private") => true,
            Some(_) => return Err("--mount: sharing is shared, private or locked".into()),
        };
        Ok(RunMount::Cache {
            id: options.take(&["id"]).unwrap_or_else(|| target.clone()),
            read_only: read_only.unwrap_or(false),
            mode: options.number("mode", 8, 0o755)? & 0o7777,
            uid: options.number("uid", 10, 0)?,
            gid: options.number("gid", 10, 0)?,
            target,
            locked,
        })
    }

    fn secret(options: &mut Options) -> Result<RunMount, String> {
        let target = options.take(&["target", "dst", "destination"]);
        let id = options.take(&["id"]).or_else(|| Some(target.as_ref()?.rsplit('/').next()?.to_owned()));
        Ok(RunMount::Secret {
            id: id.filter(|id| !id.is_empty()).ok_or("--mount=type=secret needs id=NAME")?,
            target,
            env: options.take(&["env"]),
            required: options.switch(&["required"])?.unwrap_or(false),
            mode: options.number("mode", 8, 0o400)? & 0o7777,
            uid: options.number("uid", 10, 0)?,
            gid: options.number("gid", 10, 0)?,
        })
    }
}

/// `64m` and the like.
fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b');
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| format!("--mount: size={} is no size such as 64m", text.escape_debug()))
}
