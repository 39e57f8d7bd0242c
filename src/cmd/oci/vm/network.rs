//! The interfaces of the container's network namespace, carried to the guest: beside each a tap, and whatever comes in
//! at the one goes out at the other, below all protocols. The guest's card has the interface's own Ethernet address,
//! and gets its IPv4 address and gateway.

use hv_common::link::{Interface, Routing};
use hv_common::sys::tun;
use hv_vmm::device::virtio::net::Mac;

use crate::cli::machine::NetworkArgs;
use crate::cli::machine::network::{Net, TapArgs};
use crate::error::{Failure, Result};

/// What the taps' names begin with.
const TAP: &str = "hv-tap";

/// Interfaces that are carried as long as this lives.
pub struct Carried {
    routing: Routing,
    /// Numbers of interface and tap.
    pairs: Vec<(u32, u32)>,
}

/// Carries every interface of this namespace; what the guest is to have.
///
/// # Errors
/// A tap cannot be made, or frames cannot be redirected: nothing is left of it.
pub fn carry() -> Result<(Carried, NetworkArgs)> {
    let failed = |source| Failure::new("cannot look at the network namespace's interfaces", source);
    let routing = Routing::open().map_err(failed)?;
    let mut carried = Carried { routing, pairs: Vec::new() };
    let found = carried.routing.interfaces().map_err(failed)?;
    let mut args = NetworkArgs::default();
    for (number, one) in found.iter().filter(|one| !one.name.starts_with(TAP)).enumerate() {
        let tap = format!("{TAP}{number}");
        carried.add(one, &tap).map_err(|source| {
            Failure::new(format!("cannot carry the interface {} to the guest", one.name), source)
                .hint("the host's kernel needs tun, sch_ingress, cls_matchall and act_mirred")
        })?;
        args.net.push(Net::Tap(TapArgs {
            tap,
            mac: Some(Mac(one.mac)),
            ip: one.address,
            gateway: one.gateway,
            ..TapArgs::default()
        }));
    }
    Ok((carried, args))
}

impl Carried {
    fn add(&mut self, one: &Interface, tap: &str) -> std::io::Result<()> {
        tun::keep_tap(tap)?;
        let taps = self.routing.interfaces()?;
        let made = taps.iter().find(|known| known.name == tap).ok_or(std::io::ErrorKind::NotFound)?;
        self.pairs.push((one.index, made.index));
        self.routing.bring_up(made.index, one.mtu)?;
        self.routing.redirect(one.index, made.index)?;
        self.routing.redirect(made.index, one.index)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        for (interface, tap) in &self.pairs {
            // The namespace goes, and all of it, when its owner removes it.
            let _ = self.routing.leave(*interface);
            let _ = self.routing.remove(*tap);
        }
    }
}
