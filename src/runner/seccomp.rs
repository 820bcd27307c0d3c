//! System calls that nothing in a sandbox may make: a filter over Buildah, the runtime and all
//! foreign code.
//!
//! The kernel's wide doors (modules, kexec, BPF, performance events, keyrings, `io_uring`, …) and new
//! user namespaces, in which a process would be root of more. It lies under the profile that the
//! runtime puts over RUN, which not every Buildah has compiled in. Filters are classic BPF over
//! `struct seccomp_data` (seccomp(2)); the jump offsets count instructions.

use std::io;

use seccompiler::sock_filter;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// Offsets in `struct seccomp_data`: number, architecture, low word of the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") {
    16
} else {
    20
};

const CLONE_NEWUSER: u32 = 0x1000_0000;
/// Sockets to the hypervisor, which no network namespace bounds (vsock(7)).
const AF_VSOCK: u32 = 40;

/// What is denied under one calling convention, by number.
struct Convention {
    /// `AUDIT_ARCH_*`.
    architecture: u32,
    /// Numbers from here on belong to another convention (x32).
    beyond: Option<u32>,
    /// Answered as if the kernel did not know them: programs fall back.
    unknown: &'static [u32],
    /// Answered with EPERM.
    forbidden: &'static [u32],
    /// Take `CLONE_*` flags in their first argument.
    cloning: &'static [u32],
    /// Takes an address family as its first argument.
    socket: u32,
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const CONVENTIONS: &[Convention] = &[
    Convention {
        architecture: 0xc000_003e,
        beyond: Some(0x4000_0000),
        // clone3 (its flags cannot be looked at), io_uring_setup, _enter, _register, add_key,
        // request_key, keyctl, userfaultfd, lookup_dcookie, nfsservctl
        unknown: &[435, 425, 426, 427, 248, 249, 250, 323, 212, 180],
        // acct, adjtimex, bpf, clock_adjtime, clock_settime, delete_module, fanotify_init,
        // finit_module, init_module, ioperm, iopl, kexec_file_load, kexec_load, open_by_handle_at,
        // perf_event_open, quotactl, quotactl_fd, reboot, settimeofday, swapoff, swapon, syslog, vhangup
        forbidden: &[163, 159, 321, 305, 227, 176, 300, 313, 175, 173, 172, 320, 246, 304, 298, 179, 443,
                     169, 164, 168, 167, 103, 153],
        // clone, unshare
        cloning: &[56, 272],
        socket: 41,
    },
    // 32-bit programs.
    Convention {
        architecture: 0x4000_0003,
        beyond: None,
        // the same in the order of above, and socketcall, whose arguments cannot be looked at: 32-bit
        // programs call socket since Linux 4.3
        unknown: &[435, 425, 426, 427, 286, 287, 288, 374, 253, 169, 102],
        // … and stime, vm86, vm86old, clock_settime64, clock_adjtime64
        forbidden: &[51, 124, 357, 343, 264, 129, 338, 350, 128, 101, 110, 283, 342, 336, 131, 443,
                     88, 79, 115, 87, 103, 111, 25, 166, 113, 404, 405],
        cloning: &[120, 310],
        socket: 359,
    },
];

#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
const CONVENTIONS: &[Convention] = &[Convention {
    architecture: 0xc000_00b7,
    beyond: None,
    unknown: &[435, 425, 426, 427, 217, 218, 219, 282, 18, 42],
    forbidden: &[89, 171, 280, 266, 112, 106, 262, 273, 105, 294, 104, 265, 241, 60, 443,
                 142, 170, 225, 224, 116, 58],
    cloning: &[220, 97],
    socket: 198,
}];

/// The filter for this machine; `None` where none is known.
pub fn filter() -> Option<Vec<sock_filter>> {
    program(CONVENTIONS)
}

/// Puts the filter over this process and all that come of it; sets `no_new_privs` (seccomp(2)).
///
/// # Errors
/// When the kernel takes no filter.
pub fn enforce() -> io::Result<()> {
    match filter() {
        Some(program) => seccompiler::apply_filter(&program).map_err(io::Error::other),
        None => Ok(()),
    }
}

fn program(conventions: &[Convention]) -> Option<Vec<sock_filter>> {
    let mut all = vec![load(ARCHITECTURE)];
    for convention in conventions {
        let block = block(convention);
        all.push(jump(
            JUMP_EQUAL,
            convention.architecture,
            0,
            u8::try_from(block.len()).ok()?,
        ));
        all.extend(block);
    }
    // A convention that is not known here is not let through.
    all.push(answer(ERRNO | ENOSYS));
    (!conventions.is_empty()).then_some(all)
}

fn block(convention: &Convention) -> Vec<sock_filter> {
    let mut block = vec![load(NUMBER)];
    if let Some(beyond) = convention.beyond {
        block.extend([jump(JUMP_AT_LEAST, beyond, 0, 1), answer(ERRNO | ENOSYS)]);
    }
    for (numbers, errno) in [(convention.unknown, ENOSYS), (convention.forbidden, EPERM)] {
        for &number in numbers {
            block.extend([jump(JUMP_EQUAL, number, 0, 1), answer(ERRNO | errno)]);
        }
    }
    for &number in convention.cloning {
        block.extend([
            jump(JUMP_EQUAL, number, 0, 4),
            load(FIRST_ARGUMENT),
            jump(JUMP_ANY_BIT, CLONE_NEWUSER, 0, 1),
            answer(ERRNO | EPERM),
            answer(ALLOW),
        ]);
    }
    block.extend([
        jump(JUMP_EQUAL, convention.socket, 0, 4),
        load(FIRST_ARGUMENT),
        jump(JUMP_EQUAL, AF_VSOCK, 0, 1),
        answer(ERRNO | EPERM),
        answer(ALLOW),
        answer(ALLOW),
    ]);
    block
}

fn load(offset: u32) -> sock_filter {
    jump(LOAD_WORD, offset, 0, 0)
}

fn answer(action: u32) -> sock_filter {
    jump(RETURN, action, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn decide(program: &[sock_filter], architecture: u32, number: u32, first: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let one = &program[at];
            at += 1;
            let taken = match one.code {
                LOAD_WORD => {
                    word = match one.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => first,
                        other => panic!("offset {other}"),
                    };
                    continue;
                }
                RETURN => return one.k,
                JUMP_EQUAL => word == one.k,
                JUMP_AT_LEAST => word >= one.k,
                JUMP_ANY_BIT => word & one.k != 0,
                other => panic!("code {other}"),
            };
            at += usize::from(if taken { one.jt } else { one.jf });
        }
    }

    #[test]
    fn what_is_denied_is_denied_and_the_rest_is_not() {
        let program = filter().unwrap();
        for convention in CONVENTIONS {
            let decide = |number, first| decide(&program, convention.architecture, number, first);
            for &number in convention.unknown {
                assert_eq!(decide(number, 0), ERRNO | ENOSYS, "{number}");
            }
            for &number in convention.forbidden {
                assert_eq!(decide(number, 0), ERRNO | EPERM, "{number}");
            }
            for &number in convention.cloning {
                assert_eq!(decide(number, CLONE_NEWUSER | 17), ERRNO | EPERM);
                assert_eq!(decide(number, 0x0002_0000), ALLOW);
            }
            assert_eq!(decide(convention.socket, AF_VSOCK), ERRNO | EPERM);
            assert_eq!(decide(convention.socket, 2), ALLOW);
            // read or exit, write, an unknown one
            for number in [1, 4, 64, 460] {
                assert_eq!(decide(number, u32::MAX), ALLOW, "{number}");
            }
        }
        assert_eq!(decide(&program, 0x1234, 1, 0), ERRNO | ENOSYS);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn another_convention_is_no_way_around() {
        let program = filter().unwrap();
        assert_eq!(
            decide(&program, 0xc000_003e, 0x4000_0000 | 321, 0),
            ERRNO | ENOSYS
        );
    }
}
