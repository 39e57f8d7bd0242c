//! Guest code, put together instruction by instruction.

/// Page tables of the machine's start: the level that has an entry for each GiB (vmm/src/memory/layout.rs).
const LEVEL_3: u32 = 0xa000;
/// Free memory for another page table.
const LEVEL_2: u32 = 0x10_0000;
/// Where PCI functions are configured, where their regions are, where virtio-mmio's registers are.
pub const ECAM: u32 = 0xe000_0000;
pub const REGION: u32 = 0xe100_0000;
pub const MMIO: u32 = 0xd000_0000;

/// A program. Its registers are its own: every method leaves rax, rdx, rcx, rsi and rdi as they come.
#[derive(Default)]
pub struct Program(Vec<u8>);

impl Program {
    /// One that reaches what is between 3 and 4 GiB, where all devices are.
    pub fn new() -> Program {
        let mut program = Program::default();
        // mov edi, LEVEL_2; mov eax, 3 GiB | large | writable | present; mov ecx, 512
        program.point_at(LEVEL_2).bytes(&[0xb8]).word(0xc000_0083).bytes(&[0xb9]).word(512);
        // again: mov [rdi], rax; add rax, 2 MiB; add rdi, 8; dec ecx; jnz again
        program.bytes(&[0x48, 0x89, 0x07, 0x48, 0x05]).word(2 << 20);
        program.bytes(&[0x48, 0x83, 0xc7, 0x08, 0xff, 0xc9, 0x75, 0xef]);
        program.store32(LEVEL_3 + 3 * 8, LEVEL_2 | 3);
        // mov rax, cr3; mov cr3, rax
        program.bytes(&[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]);
        program
    }

    /// What it came to.
    pub fn code(&self) -> &[u8] {
        &self.0
    }

    /// An instruction.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Program {
        self.0.extend_from_slice(bytes);
        self
    }

    /// An instruction's immediate operand.
    pub fn word(&mut self, word: u32) -> &mut Program {
        self.bytes(&word.to_le_bytes())
    }

    /// mov edi, ADDRESS
    pub fn point_at(&mut self, address: u32) -> &mut Program {
        self.bytes(&[0xbf]).word(address)
    }

    /// mov qword [rdi], rax, of VALUE
    pub fn store64(&mut self, address: u32, value: u64) -> &mut Program {
        self.bytes(&[0x48, 0xb8]).bytes(&value.to_le_bytes()).point_at(address).bytes(&[0x48, 0x89, 0x07])
    }

    /// mov dword [rdi], VALUE
    pub fn store32(&mut self, address: u32, value: u32) -> &mut Program {
        self.point_at(address).bytes(&[0xc7, 0x07]).word(value)
    }

    /// mov word [rdi], VALUE
    pub fn store16(&mut self, address: u32, value: u16) -> &mut Program {
        self.point_at(address).bytes(&[0x66, 0xc7, 0x07]).bytes(&value.to_le_bytes())
    }

    /// mov byte [rdi], VALUE
    pub fn store8(&mut self, address: u32, value: u8) -> &mut Program {
        self.point_at(address).bytes(&[0xc6, 0x07, value])
    }

    /// mov eax, [rdi]
    pub fn load32(&mut self, address: u32) -> &mut Program {
        self.point_at(address).bytes(&[0x8b, 0x07])
    }

    /// mov rax, [rdi]
    pub fn load64(&mut self, address: u32) -> &mut Program {
        self.point_at(address).bytes(&[0x48, 0x8b, 0x07])
    }

    /// Reads one address, and writes those of its bits that are in `mask` to another: load32; and eax, MASK;
    /// mov edi, TO; mov [rdi], eax
    pub fn copy32(&mut self, from: u32, to: u32, mask: u32) -> &mut Program {
        self.load32(from).bytes(&[0x25]).word(mask).point_at(to).bytes(&[0x89, 0x07])
    }

    /// mov edx, PORT; mov eax, VALUE; then `out` of 1, 2 or 4 bytes
    pub fn output(&mut self, port: u16, value: u32, width: u8) -> &mut Program {
        let out: &[u8] = match width {
            1 => &[0xee],
            2 => &[0x66, 0xef],
            _ => &[0xef],
        };
        self.bytes(&[0xba]).word(port.into()).bytes(&[0xb8]).word(value).bytes(out)
    }

    /// mov edx, PORT; then `in` of 1, 2 or 4 bytes
    pub fn input(&mut self, port: u16, width: u8) -> &mut Program {
        let input: &[u8] = match width {
            1 => &[0xec],
            2 => &[0x66, 0xed],
            _ => &[0xed],
        };
        self.bytes(&[0xba]).word(port.into()).bytes(input)
    }

    /// mov edx, PORT; mov esi or edi, ADDRESS; mov ecx, COUNT; then `rep outs` or `rep ins` of 1, 2 or 4 bytes
    pub fn string_io(&mut self, port: u16, address: u32, count: u32, width: u8, out: bool) -> &mut Program {
        self.bytes(&[0xba]).word(port.into());
        self.bytes(&[if out { 0xbe } else { 0xbf }]).word(address).bytes(&[0xb9]).word(count);
        let (byte, wide) = if out { (0x6e, 0x6f) } else { (0x6c, 0x6d) };
        match width {
            1 => self.bytes(&[0xf3, byte]),
            2 => self.bytes(&[0xf3, 0x66, wide]),
            _ => self.bytes(&[0xf3, wide]),
        }
    }
}
