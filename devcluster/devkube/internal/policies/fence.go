package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// prefix begins every chain and set of ours; nothing else of the node's is ever written.
const prefix = "DC-POL-"

// known is the set of every pod address that the fence speaks of. An address of the pod network outside of it is
// held: nobody knows yet what may reach it.
const known = prefix + "KNOWN"

// Kinds of sets, as ipset names them.
const (
	addresses = "hash:ip"
	networks  = "hash:net"
	endpoints = "hash:ip,port"
)

// pod is what a fence needs to know of a pod on the pod network.
type pod struct {
	namespace, uid, address string
	labels                  labels.Set
	ports                   []core.ContainerPort
	// local says that the pod is on this node, whose fence alone guards it.
	local bool
}

// world is one moment of the cluster.
type world struct {
	pods       []*pod
	namespaces map[string]labels.Set
	policies   []*networking.NetworkPolicy
}

// set is the wanted content of one ipset.
type set struct {
	kind    string
	members map[string]bool
}

// fence is what the kernel should hold: sets and the chains of rules that match them.
//
// Each selected pod is in the set of one chain for each direction in which it is isolated. A chain is named by the
// digest of its rules, so that pods with equal rules share one and a chain's content never changes. An allowed packet
// returns from it; the last rule rejects.
type fence struct {
	sets   map[string]set
	chains map[string][]string
}

// build computes the fence of a node. It is a pure function: the same world gives the same fence.
func build(seen world) fence {
	builder := builder{world: seen, fence: fence{sets: map[string]set{}, chains: map[string][]string{}}}
	everyone := builder.fence.set(known, addresses)
	byNamespace := map[string][]*networking.NetworkPolicy{}
	for _, policy := range seen.policies {
		byNamespace[policy.Namespace] = append(byNamespace[policy.Namespace], policy)
	}
	for _, each := range seen.pods {
		everyone[each.address] = true
		if each.local {
			builder.isolate(each, byNamespace[each.namespace])
		}
	}
	return builder.fence
}

// set gives the members of a set, made on first use.
func (f fence) set(name, kind string) map[string]bool {
	if _, made := f.sets[name]; !made {
		f.sets[name] = set{kind: kind, members: map[string]bool{}}
	}
	return f.sets[name].members
}

// guards lists the chains of one direction in a fixed order.
func (f fence) guards(direction direction) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.chains)), func(chain string) bool {
		return !strings.HasPrefix(chain, direction.prefix())
	})
}

// direction is one of the two in which a pod can be isolated.
type direction struct {
	kind networking.PolicyType
	// own and other say on which side of a packet the selected pod and its peer are, in the words of the set match.
	own, other string
}

var (
	ingress = direction{kind: networking.PolicyTypeIngress, own: "dst", other: "src"}
	egress  = direction{kind: networking.PolicyTypeEgress, own: "src", other: "dst"}
)

// prefix begins the names of the direction's chains, and of the sets of pods that they guard.
func (d direction) prefix() string {
	return prefix + string(d.kind[:1]) + "-"
}

// builder collects the sets and chains of one world.
type builder struct {
	world world
	fence fence
}

// isolate puts a pod behind the chains of the policies that select it; one that none selects stays open.
func (b builder) isolate(guarded *pod, policies []*networking.NetworkPolicy) {
	for _, direction := range []direction{ingress, egress} {
		isolated, rules := false, map[string]bool{}
		for _, policy := range policies {
			if !selects(&policy.Spec.PodSelector, guarded.labels) || !speaksOf(policy, direction.kind) {
				continue
			}
			isolated = true
			for _, match := range b.matches(policy, direction, guarded) {
				rules[match] = true
			}
		}
		if isolated {
			chain := b.chain(direction, slices.Sorted(maps.Keys(rules)))
			b.fence.set(chain, addresses)[guarded.address] = true
		}
	}
}

// chain gives the name of the chain that lets pass what one of the matches describes and rejects the rest.
func (b builder) chain(direction direction, matches []string) string {
	name := direction.prefix() + digest(matches...)
	rules := make([]string, 0, len(matches)+1)
	for _, match := range matches {
		rules = append(rules, strings.TrimSpace(match+" -j RETURN"))
	}
	// Rejected and not dropped: a client learns it at once, as everything unreachable here is told at once.
	b.fence.chains[name] = append(rules, "-j REJECT --reject-with icmp-admin-prohibited")
	return name
}

// speaksOf tells whether a policy isolates in a direction; without types it does as the API server would default them.
func speaksOf(policy *networking.NetworkPolicy, kind networking.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) == 0 {
		return kind == networking.PolicyTypeIngress || len(policy.Spec.Egress) > 0
	}
	return slices.Contains(policy.Spec.PolicyTypes, kind)
}

// digest shortens words to what fits into a name: chains may have 28 characters, sets 31. Each word ends with a line,
// because no words and one empty word are opposites here: a chain that lets nothing pass, and one that lets everything.
func digest(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat(words, []string{""}), "\n")))
	return hex.EncodeToString(sum[:8])
}

// frame is the rules of the two chains that every packet of a pod passes, in the order of the packet's way.
//
// Only what opens a connection and what follows it in the same direction is judged, packet by packet: a connection
// that is no longer allowed ends with the policy, and a reply needs no policy of its own.
func (f fence) frame(podNetwork string) map[string][]string {
	replies := []string{
		"-m conntrack --ctstate RELATED -j RETURN",
		"-m conntrack --ctstate ESTABLISHED --ctdir REPLY -j RETURN",
	}
	// Dropped and not rejected: the sender tries again, and by then the address is known.
	unknown := func(flag, side string) string {
		return fmt.Sprintf("%s %s -m set ! --match-set %s %s -j DROP", flag, podNetwork, known, side)
	}
	dispatch := func(direction direction) (rules []string) {
		for _, chain := range f.guards(direction) {
			rules = append(rules, fmt.Sprintf("-m set --match-set %s %s -j %s", chain, direction.own, chain))
		}
		return rules
	}
	return map[string][]string{
		prefix + "FORWARD": slices.Concat(
			replies,
			[]string{unknown("-s", "src"), unknown("-d", "dst"), "-m bpf --bytecode \"" + toItself + "\" -j RETURN"},
			dispatch(egress), dispatch(ingress),
		),
		// To the node itself: its API server, kubelet, DNS. What the node sends to its pods is never judged.
		prefix + "INPUT": slices.Concat([]string{"-i lo -j RETURN"}, replies, []string{unknown("-s", "src")}, dispatch(egress)),
	}
}

// toItself is a filter that matches equal source and destination: a pod that reaches itself through its Service,
// which no policy can forbid. It reads the header's two addresses and compares them.
const toItself = "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0"
