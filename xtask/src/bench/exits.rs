//! Names of the reasons for which an AMD processor leaves a guest.

/// AMD64 Architecture Programmer's Manual volume 2, appendix C.
pub fn name(code: u64) -> String {
    let name = match code {
        0x00..=0x0f => "read of a control register",
        0x10..=0x1f => "write of a control register",
        0x20..=0x3f => "debug register",
        0x40..=0x5f => "exception",
        0x60 => "interrupt of the host",
        0x64 => "interrupt window",
        0x65 => "selective write of CR0",
        0x6e | 0x87 => "time stamp counter",
        0x72 => "CPUID",
        0x76 | 0x89 => "cache flush",
        0x77 => "PAUSE",
        0x78 => "HLT",
        0x7b => "port",
        0x7c => "model-specific register",
        0x7f => "shutdown",
        0x81 => "hypercall",
        0x8d => "XSETBV",
        0x400 => "memory not mapped, or a device's",
        _ => return format!("{code:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_reasons_keep_their_number() {
        assert_eq!(name(0x7b), "port");
        assert_eq!(name(0x1234), "0x1234");
    }
}
