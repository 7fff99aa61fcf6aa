"""Whether this machine's firewall can do what enforcing network policies takes. Changes nothing."""

from __future__ import annotations

import subprocess

__all__ = ["shortcoming"]

_PROBE_SECONDS = 20
_PROBE = """
for kind in hash:ip hash:net hash:ip,port; do ipset create "DC-$kind" "$kind"; done
ipset add DC-hash:net 10.0.0.0/8 nomatch
iptables-restore --noflush <<RULES
*filter
-A FORWARD -m set --match-set DC-hash:net dst -m set --match-set DC-hash:ip,port dst,dst -j RETURN
-A FORWARD -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j RETURN
-A FORWARD -m bpf --bytecode "1,6 0 0 0" -j REJECT --reject-with icmp-admin-prohibited
COMMIT
RULES
test -e /proc/sys/net/bridge/bridge-nf-call-iptables || { echo the kernel lacks br_netfilter >&2; exit 1; }
"""
"""One of each that the agent writes, in a network namespace that ends with the shell."""


def shortcoming() -> str:
    """Return why this machine cannot enforce network policies, in one line; empty when it can.

    It tries: what a kernel was built with is written down nowhere that can be relied on.
    """
    try:
        ended = subprocess.run(
            ["unshare", "--net", "--", "sh", "-ec", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be tried: {error}"
    if ended.returncode == 0:
        return ""
    said = ended.stderr.strip().splitlines()
    return said[0] if said else f"a trial ended with exit code {ended.returncode}"
