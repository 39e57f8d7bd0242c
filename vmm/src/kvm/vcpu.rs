//! One processor: its state before the first instruction, and the thread that runs it.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use hv_common::{Phase, Timeline};
use kvm_bindings::{CpuId, Msrs, kvm_regs, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::stats::Stats;
use super::vm::Vm;
use super::{Error, exit};
use crate::bus::Bus;
use crate::device::Space;
use crate::end::{End, Ending};
use crate::gate::Gate;
use crate::hardware::pin_this_thread;
use crate::seccomp::{Mode, Role};
use crate::threads;

/// A processor that does not run yet.
pub struct Vcpu {
    fd: VcpuFd,
    id: u8,
    pin: Option<usize>,
}

impl Vcpu {
    /// The machine's processor of this number. 0 is the one that boots; the others wait for it.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn new(vm: &Vm, id: u8) -> Result<Vcpu, Error> {
        Ok(Vcpu { fd: vm.create_vcpu(id)?, id, pin: None })
    }

    /// Its thread will stay on this processor of the host.
    pub fn pin(&mut self, cpu: usize) {
        self.pin = Some(cpu);
    }

    /// The frequency of its time stamp counter in kHz, if the host's is stable.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz != 0)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), Error> {
        self.fd.set_cpuid2(cpuid).map_err(Error::ioctl("set a vCPU's CPUID"))
    }

    /// Sets model-specific registers, all of them.
    ///
    /// # Errors
    /// As the ioctl, or KVM took only some of them.
    pub fn set_msrs(&self, msrs: &Msrs) -> Result<(), Error> {
        let set = self.fd.set_msrs(msrs).map_err(Error::ioctl("set a vCPU's model-specific registers"))?;
        if set == msrs.as_slice().len() {
            return Ok(());
        }
        let refused = msrs.as_slice().get(set).map_or(0, |msr| msr.index);
        let source =
            io::Error::other(format!("the guest's processor has no register {refused:#x} of that value"));
        Err(Error::Ioctl { operation: "set a vCPU's model-specific registers", source })
    }

    /// Segments, control registers and descriptor tables as they are now.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn special_registers(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(Error::ioctl("read a vCPU's registers"))
    }

    /// Sets all registers.
    ///
    /// # Errors
    /// As the ioctls.
    pub fn set_registers(&self, special: &kvm_sregs, general: &kvm_regs) -> Result<(), Error> {
        self.fd.set_sregs(special).map_err(Error::ioctl("set a vCPU's segments and control registers"))?;
        self.fd.set_regs(general).map_err(Error::ioctl("set a vCPU's registers"))
    }

    /// Its exit counts; None where the host's kernel keeps none.
    pub fn stats(&self) -> Option<Stats> {
        Stats::of(&self.fd).ok()
    }

    /// Starts the thread that runs it until the machine ends or [`Running::stop`].
    ///
    /// # Errors
    /// No signal handler or no thread.
    pub fn run(self, world: World) -> io::Result<Running> {
        install_kick()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let name = format!("vcpu{}", self.id);
        let thread = threads::spawn(&name, move || self.run_until_end(&world, &stopped))?;
        Ok(Running { stop, thread: Some(thread) })
    }

    fn run_until_end(mut self, world: &World, stop: &AtomicBool) {
        if let Some(cpu) = self.pin
            && let Err(error) = pin_this_thread(cpu)
        {
            world.ending.tell(End::Pin { cpu, errno: error.raw_os_error().unwrap_or(0) });
        }
        if let Err(error) = world.filters.enter(Role::Vcpu) {
            world.ending.tell(End::Filter(error.raw_os_error().unwrap_or(0)));
        }
        world.gate.pass();
        let kickable = Kickable::new(&mut self.fd);
        if self.id == 0 {
            world.timeline.mark(Phase::Boundary);
            world.timeline.mark(Phase::Kernel);
        }
        while !stop.load(Ordering::SeqCst) && world.ending.get().is_none() {
            if world.gate.pass() {
                // The guest's clock has gone on: its watchdogs must not take that for a hang. Refused while
                // the guest does not use KVM's clock, and then there is nobody to tell.
                let _ = self.fd.kvmclock_ctrl();
                continue;
            }
            if let Some(end) = step(&mut self.fd, &world.bus) {
                world.ending.tell(end);
            }
        }
        drop(kickable);
    }
}

/// What a processor's exits reach.
#[derive(Clone)]
pub struct World {
    /// The devices.
    pub bus: Arc<Bus>,
    /// Where a fatal exit is told, and where another's is seen.
    pub ending: Ending,
    /// Where it is held.
    pub gate: Gate,
    /// Where the first entry is marked.
    pub timeline: Timeline,
    /// What becomes of system calls that a processor's thread has no use for.
    pub filters: Mode,
}

/// Enters the guest once and does what its exit asks for. Some: the machine cannot go on.
fn step(fd: &mut VcpuFd, bus: &Bus) -> Option<End> {
    match fd.run() {
        Ok(VcpuExit::IoOut(port, data)) => bus.write(Space::Port, port.into(), data),
        Ok(VcpuExit::IoIn(port, data)) => bus.read(Space::Port, port.into(), data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.write(Space::Memory, address, data),
        Ok(VcpuExit::MmioRead(address, data)) => bus.read(Space::Memory, address, data),
        Ok(VcpuExit::Shutdown) => return Some(End::TripleFault),
        Ok(VcpuExit::InternalError) => {
            let rip = fd.get_regs().map_or(0, |registers| registers.rip);
            return Some(exit::internal_error(fd.get_kvm_run(), rip));
        }
        Ok(VcpuExit::FailEntry(reason, _)) => return Some(End::FailedEntry(reason)),
        Ok(VcpuExit::Intr) => fd.set_kvm_immediate_exit(0),
        Ok(_) => return Some(End::Unknown(fd.get_kvm_run().exit_reason)),
        // A signal. If it was the kick, then the stop flag was set before it; if it comes again after
        // this store, the byte is set again.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => fd.set_kvm_immediate_exit(0),
        Err(error) => return Some(End::Run(error.errno())),
    }
    None
}

/// A processor's thread. Dropping stops it and waits for it.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Takes the processor out of the guest and ends its thread; does not wait.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Takes the processor out of the guest, to look at what has changed.
    pub fn kick(&self) {
        if let Some(thread) = &self.thread {
            // Fails only when the thread has ended already.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

thread_local! {
    /// The `immediate_exit` byte of the vCPU that this thread runs, or null.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// While it lives, the kick signal takes this thread out of KVM_RUN, or keeps it from entering.
///
/// A signal alone would be lost between the thread's look at its stop flag and the entry; the byte
/// makes that entry return at once (Documentation/virt/kvm/api.rst, `immediate_exit`).
struct Kickable(());

impl Kickable {
    fn new(fd: &mut VcpuFd) -> Kickable {
        IMMEDIATE_EXIT.set(&raw mut fd.get_kvm_run().immediate_exit);
        Kickable(())
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

extern "C" fn kicked(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let byte = IMMEDIATE_EXIT.get();
    if !byte.is_null() {
        // SAFETY: not null means that a Kickable of this very thread lives, whose vCPU's page stays
        // mapped longer; the kernel only reads the byte.
        unsafe { byte.write_volatile(1) };
    }
}

fn install_kick() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| register_signal_handler(SIGRTMIN(), kicked).map_err(|error| error.errno()))
        .map_err(io::Error::from_raw_os_error)
}
