//! `hv kernel`: the store of kernels, so that `--kernel` may be left out.

use std::io::{self, Write};

use hv_image::dirs::Dirs;
use hv_image::store::{Installed, Store};

use crate::cli::KernelVerb;
use crate::error::{self, Failure, Result};

/// Does what was typed.
///
/// # Errors
/// As the store.
pub fn run(verb: KernelVerb) -> Result<u8> {
    let store = Store::new(&Dirs::of_this_user()?);
    match verb {
        KernelVerb::Install => {
            let installed = store.install(&mut |doing| error::say(format_args!("{doing}")))?;
            print(&[format!("{}\n", installed.name)])
        }
        KernelVerb::Add { file, modules, name } => {
            let added = store.add(&file, modules.as_deref(), name.as_deref())?;
            print(&[format!("{}\n", added.name)])
        }
        KernelVerb::Ls => list(&store),
        KernelVerb::Default { name } => store.set_default(&name).map(|_| 0).map_err(Failure::from),
        KernelVerb::Rm { names } => {
            names.iter().try_for_each(|name| store.remove(name))?;
            Ok(0)
        }
    }
}

fn list(store: &Store) -> Result<u8> {
    let default = store.default()?.map(|kernel| kernel.name);
    let lines: Vec<String> =
        store.list()?.iter().map(|kernel| line(kernel, default.as_ref() == Some(&kernel.name))).collect();
    if lines.is_empty() {
        error::say(format_args!("no kernel is in the store; `hv kernel install` gets Debian's"));
    }
    print(&lines)
}

/// The default is marked as git marks the current branch.
fn line(kernel: &Installed, is_default: bool) -> String {
    let mark = if is_default { '*' } else { ' ' };
    let owner = if kernel.own { "" } else { " (for everybody)" };
    format!("{mark} {:<30} {}{owner}\n", kernel.name, kernel.origin)
}

fn print(lines: &[String]) -> Result<u8> {
    let written = io::stdout().write_all(lines.concat().as_bytes());
    written.map_err(|source| Failure::new("cannot print the kernels", source))?;
    Ok(0)
}
