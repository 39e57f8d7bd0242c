//! What an exit that ends a machine has to say, read from the vCPU's shared page.

use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};

use crate::end::End;

/// The end behind KVM_EXIT_INTERNAL_ERROR, at instruction pointer `rip`.
///
/// Only to be called while `run.exit_reason` is KVM_EXIT_INTERNAL_ERROR; otherwise what it says is
/// nonsense, but harmless.
pub(super) fn internal_error(run: &kvm_run, rip: u64) -> End {
    // SAFETY: both are views of plain integers, valid for any bytes; the page is initialised by the kernel.
    let (internal, emulation) =
        unsafe { (run.__bindgen_anon_1.internal, run.__bindgen_anon_1.emulation_failure) };
    if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
        return End::Internal(internal.suberror);
    }
    let has_bytes = internal.ndata >= 1
        && emulation.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    // SAFETY: plain bytes, valid whatever they hold.
    let instruction = unsafe { emulation.__bindgen_anon_1.__bindgen_anon_1 };
    let len = if has_bytes { usize::from(instruction.insn_size).min(15) } else { 0 };
    End::Emulation { rip, bytes: instruction.insn_bytes[..len].to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page as KVM would fill it.
    fn run(suberror: u32, ndata: u32, flags: u64, bytes: &[u8]) -> kvm_run {
        let mut run = kvm_run::default();
        run.__bindgen_anon_1.internal.suberror = suberror;
        run.__bindgen_anon_1.internal.ndata = ndata;
        // SAFETY: plain integers behind a union, all initialised by default().
        unsafe {
            run.__bindgen_anon_1.emulation_failure.flags = flags;
            let instruction = &mut run.__bindgen_anon_1.emulation_failure.__bindgen_anon_1.__bindgen_anon_1;
            instruction.insn_size = bytes.len() as u8;
            let kept = bytes.len().min(15);
            instruction.insn_bytes[..kept].copy_from_slice(&bytes[..kept]);
        }
        run
    }

    #[test]
    fn emulation_failure_has_its_bytes() {
        let end = internal_error(&run(1, 4, 1, &[0x48, 0x0f, 0xc7, 0x0f]), 0x1234);
        assert_eq!(end, End::Emulation { rip: 0x1234, bytes: vec![0x48, 0x0f, 0xc7, 0x0f] });
    }

    #[test]
    fn absent_and_overlong_bytes_are_survived() {
        assert_eq!(internal_error(&run(1, 0, 1, &[1, 2]), 1), End::Emulation { rip: 1, bytes: vec![] });
        let End::Emulation { bytes, .. } = internal_error(&run(1, 4, 1, &[7; 200]), 1) else {
            panic!("not an emulation failure")
        };
        assert_eq!(bytes, [7; 15]);
    }

    #[test]
    fn other_suberrors_are_named_by_number() {
        assert_eq!(internal_error(&run(3, 0, 0, &[]), 1), End::Internal(3));
    }
}
