//! Network of foreign code: a namespace of its own, with pasta as the only way out of it.
//!
//! The namespace is around the whole of Buildah, so that `ADD URL` is caught, too. pasta gives it a
//! copy of the host's own address (so that address leads nowhere) and no way to the host's
//! loopback; everything else that is closed is a rule before all routes, which nobody in the sandbox may
//! change. Name queries go to an address that only pasta knows.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::mount_bind;

/// Where name queries go; documentation addresses (RFC 5737, RFC 3849) that no network uses.
const RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);

/// How long pasta may take until the network is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What pasta says on a host that has no way out itself (pasta's conf.c).
const NO_WAY_OUT: &[&str] = &[
    "External interface not usable",
    "No external routable interface",
];

/// Networks that foreign code never reaches: link-local, and the metadata services of clouds that
/// lie elsewhere.
fn always_closed() -> impl Iterator<Item = IpNet> {
    let v4 = |a, b, c, d, bits| Ipv4Net::new(Ipv4Addr::new(a, b, c, d), bits).map(IpNet::from);
    let v6 = |first, second, last, bits| {
        Ipv6Net::new(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last), bits).map(IpNet::from)
    };
    [
        v4(169, 254, 0, 0, 16),
        v4(100, 100, 100, 200, 32),
        v4(168, 63, 129, 16, 32),
        v6(0xfe80, 0, 0, 64),
        v6(0xfd00, 0xec2, 0x254, 128),
    ]
    .into_iter()
    .flatten()
}

/// The host's own addresses.
pub(super) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|one| IpAddr::V4(one.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|one| IpAddr::V6(one.ip())))
        })
        .filter(|address| !address.is_loopback())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Lines for `ip -batch` that close networks, in one address family. Rules come before every route, that
/// to the neighbours included (ip-rule(8)); and they need no interface, so they come before the way out.
fn rules(own: &[IpAddr], closed: &[IpNet], v6: bool) -> String {
    always_closed()
        .chain(closed.iter().copied())
        .chain(own.iter().map(|&address| IpNet::from(address)))
        .filter(|net| net.addr().is_ipv6() == v6)
        .map(|net| format!("rule add to {} priority 1 blackhole\n", net.trunc()))
        .collect()
}

/// `/etc/resolv.conf` of the sandbox, from the host's: its name servers are reached through pasta.
pub fn resolver(host: &str) -> String {
    let servers: Vec<IpAddr> = host
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .split_whitespace()
                .next()
        })
        .filter_map(|word| word.split('%').next()?.parse().ok())
        .collect();
    let mut text = String::new();
    // A file without a server means a server on loopback (resolv.conf(5)), which is not there.
    if servers.iter().any(IpAddr::is_ipv4) || servers.is_empty() {
        text += &format!("nameserver {RESOLVER_V4}\n");
    }
    if servers.iter().any(IpAddr::is_ipv6) {
        text += &format!("nameserver {RESOLVER_V6}\n");
    }
    for line in host.lines().map(str::trim) {
        if line.starts_with("search ")
            || line.starts_with("options ")
            || line.starts_with("domain ")
        {
            text += &format!("{line}\n");
        }
    }
    text
}

/// Puts the calling thread, and what it starts, into a new namespace in which everything is closed that
/// foreign code must never reach.
///
/// # Errors
/// When it cannot be made; then nothing may run in it.
pub fn enter_closed(closed: &[IpNet]) -> io::Result<()> {
    let has_v6 = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|all| !all.is_empty());
    let own = own_addresses()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    // It goes with the namespace: one that pasta makes goes with pasta, which the end of each sandbox
    // waits for (drivers/net/tun.c, tun_chr_close).
    let device = format!("tuntap add dev {DEVICE} mode tap\n");
    let rules_v4 = rules(&own, closed, false);
    let v4 = ip("-4", &format!("{LOOPBACK}{device}{rules_v4}"))?;
    let v6 = has_v6.then(|| ip("-6", &rules(&own, closed, true)));
    finish(v4)?;
    v6.map_or(Ok(()), |v6| finish(v6?))
}

/// Puts the calling thread, and what it starts, into a new namespace without any network.
///
/// # Errors
/// When it cannot be made.
pub fn enter_none() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    finish(ip("-4", LOOPBACK)?)
}

/// Gives the namespace of the calling thread a name, by which others find it.
///
/// # Errors
/// When the file cannot be made.
pub fn pin(place: &Path) -> io::Result<()> {
    File::create(place)?;
    Ok(mount_bind("/proc/thread-self/ns/net", place)?)
}

/// Line for `ip -batch` that makes loopback work.
const LOOPBACK: &str = "link set lo up\n";

/// What pasta's device is called in the namespace.
const DEVICE: &str = "eth0";

/// Begins to carry out lines for `ip -batch`.
fn ip(family: &str, lines: &str) -> io::Result<Child> {
    let mut child = Command::new("ip")
        .args([family, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("ip cannot be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    Ok(child)
}

fn finish(mut ip: Child) -> io::Result<()> {
    let status = ip.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the network namespace could not be made: ip ended with {status}"
        )))
    }
}

/// A way out of a namespace that pasta is about to make.
#[derive(Debug)]
pub struct WayOut {
    pasta: Child,
    said: PathBuf,
    begun: Instant,
}

impl WayOut {
    /// Begins to give the namespace at `place` a way out. Must be called where there is one.
    ///
    /// # Errors
    /// When pasta cannot be started.
    pub fn begin(place: &Path) -> io::Result<Self> {
        let said = place.with_extension("log");
        let pasta = Command::new("pasta")
            .args(["--quiet", "--config-net", "--netns-only", "--no-map-gw"])
            // It goes with its PID namespace. A watch for the end of the network namespace would make the end of
            // each sandbox wait for the kernel (fs/notify/mark.c).
            .arg("--no-netns-quit")
            .args(["--ns-ifname", DEVICE])
            .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
            .args(["--dns-forward", &RESOLVER_V4.to_string()])
            .args(["--dns-forward", &RESOLVER_V6.to_string()])
            .arg("--netns")
            .arg(place)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said)?)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("pasta cannot be started: {error}"))
            })?;
        Ok(Self {
            pasta,
            said,
            begun: Instant::now(),
        })
    }

    /// Waits until the network is there. Returns whether there is a way out; a host without one has
    /// none to give.
    ///
    /// # Errors
    /// When pasta fails, or takes too long.
    pub fn wait(mut self) -> io::Result<bool> {
        // It goes to the background when the network is there.
        let status = loop {
            if let Some(status) = self.pasta.try_wait()? {
                break status;
            }
            if self.begun.elapsed() > PATIENCE {
                self.pasta.kill()?;
                self.pasta.wait()?;
                return Err(io::Error::other(format!(
                    "pasta gave no network within {} s; /dev/net/tun must be usable for everybody (mode 0666)",
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if status.success() {
            return Ok(true);
        }
        let words = fs::read_to_string(&self.said).unwrap_or_default();
        if NO_WAY_OUT.iter().any(|sign| words.contains(sign)) {
            return Ok(false);
        }
        let words = words.lines().last().unwrap_or("no output").to_owned();
        Err(io::Error::other(format!(
            "pasta ended with {status}: {words}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_the_host_and_what_the_operator_names_is_closed() {
        let own = ["192.0.2.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let closed = ["10.1.2.3/8".parse().unwrap()];
        let v4 = rules(&own, &closed, false);
        for net in ["169.254.0.0/16", "10.0.0.0/8", "192.0.2.7/32"] {
            assert!(v4.contains(&format!("to {net} ")), "{v4}");
        }
        assert!(!v4.contains(':'), "{v4}");
        let v6 = rules(&own, &closed, true);
        for net in ["fe80::/64", "fd00::7/128", "fd00:ec2::254/128"] {
            assert!(v6.contains(&format!("to {net} ")), "{v6}");
        }
    }

    #[test]
    fn names_are_asked_of_pasta_in_the_families_of_the_host() {
        let both = resolver(
            "search a.example\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions edns0\n",
        );
        assert_eq!(
            both,
            "nameserver 198.51.100.53\nnameserver 2001:db8::53\nsearch a.example\noptions edns0\n"
        );
        assert_eq!(resolver(""), "nameserver 198.51.100.53\n");
        assert_eq!(resolver("nameserver ::1\n"), "nameserver 2001:db8::53\n");
    }
}
