package policies

import (
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// matches describes, as matches of iptables, every packet that a policy lets pass; "" describes all of them.
func (b builder) matches(policy *networking.NetworkPolicy, direction direction, guarded *pod) (found []string) {
	allow := func(peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) {
		for _, who := range b.peers(policy.Namespace, peers, direction) {
			for _, where := range b.ports(ports, direction, guarded) {
				found = append(found, strings.TrimSpace(where+" "+who))
			}
		}
	}
	if direction == ingress {
		for _, rule := range policy.Spec.Ingress {
			allow(rule.From, rule.Ports)
		}
		return found
	}
	for _, rule := range policy.Spec.Egress {
		allow(rule.To, rule.Ports)
	}
	return found
}

// peers describes the other side. No peers at all is everybody; a list is the union of its entries.
func (b builder) peers(namespace string, peers []networking.NetworkPolicyPeer, direction direction) (found []string) {
	if len(peers) == 0 {
		return []string{""}
	}
	for _, peer := range peers {
		name := ""
		if peer.IPBlock != nil {
			name = b.block(peer.IPBlock)
		} else {
			name = b.selected(namespace, peer)
		}
		if name != "" {
			found = append(found, fmt.Sprintf("-m set --match-set %s %s", name, direction.other))
		}
	}
	return found
}

// selected gives the set of the pods that a peer selects: by labels in the policy's own namespace, or in every
// namespace that the peer selects.
func (b builder) selected(namespace string, peer networking.NetworkPolicyPeer) string {
	words, _ := json.Marshal(peer) // labels and operators only: nothing in it can fail
	if peer.NamespaceSelector != nil {
		namespace = ""
	}
	name := prefix + "P-" + digest(namespace, string(words))
	if _, made := b.fence.sets[name]; made {
		return name
	}
	members := b.fence.set(name, addresses)
	for _, each := range b.world.pods {
		if namespace != "" && each.namespace != namespace {
			continue
		}
		if peer.NamespaceSelector != nil && !selects(peer.NamespaceSelector, b.world.namespaces[each.namespace]) {
			continue
		}
		if peer.PodSelector == nil || selects(peer.PodSelector, each.labels) {
			members[each.address] = true
		}
	}
	return name
}

// block gives the set of a range of addresses without its exceptions; "" for IPv6, of which pods here have none.
func (b builder) block(block *networking.IPBlock) string {
	name := prefix + "B-" + digest(append([]string{block.CIDR}, block.Except...)...)
	members := map[string]bool{}
	for _, each := range halves(block.CIDR) {
		members[each] = true
	}
	if len(members) == 0 {
		return ""
	}
	for _, exception := range block.Except {
		for _, each := range halves(exception) {
			delete(members, each) // half of everything can be its own exception
			members[each+" nomatch"] = true
		}
	}
	b.fence.sets[name] = set{kind: networks, members: members}
	return name
}

// halves writes a range as ipset does: without the length where it is one address, and everything as two halves,
// because a set of networks cannot hold it as one.
func halves(cidr string) []string {
	network, err := netip.ParsePrefix(cidr)
	if err != nil || !network.Addr().Is4() {
		return nil
	}
	switch network = network.Masked(); network.Bits() {
	case 0:
		return []string{"0.0.0.0/1", "128.0.0.0/1"}
	case 32:
		return []string{network.Addr().String()}
	}
	return []string{network.String()}
}

// ports describes protocols and ports; none at all is every packet, of whatever protocol.
func (b builder) ports(ports []networking.NetworkPolicyPort, direction direction, guarded *pod) (found []string) {
	if len(ports) == 0 {
		return []string{""}
	}
	for _, each := range ports {
		protocol := core.ProtocolTCP
		if each.Protocol != nil {
			protocol = *each.Protocol
		}
		match := "-p " + strings.ToLower(string(protocol))
		switch {
		case each.Port == nil:
			found = append(found, match)
		case each.Port.Type == intstr.Int:
			found = append(found, match+" --dport "+portRange(each))
		case direction == egress:
			found = append(found, match+" -m set --match-set "+b.named(each.Port.StrVal, protocol)+" dst,dst")
		default:
			for _, number := range numbers(guarded, each.Port.StrVal, protocol) {
				found = append(found, fmt.Sprintf("%s --dport %d", match, number))
			}
		}
	}
	return found
}

func portRange(port networking.NetworkPolicyPort) string {
	if port.EndPort != nil {
		return fmt.Sprintf("%d:%d", port.Port.IntVal, *port.EndPort)
	}
	return fmt.Sprint(port.Port.IntVal)
}

// named gives the set of the endpoints that a port's name stands for: on each pod the number that its own containers
// give it.
func (b builder) named(port string, protocol core.Protocol) string {
	name := prefix + "N-" + digest(port, string(protocol))
	members := b.fence.set(name, endpoints)
	for _, each := range b.world.pods {
		for _, number := range numbers(each, port, protocol) {
			members[fmt.Sprintf("%s,%s:%d", each.address, strings.ToLower(string(protocol)), number)] = true
		}
	}
	return name
}

func numbers(of *pod, name string, protocol core.Protocol) (found []int32) {
	for _, port := range of.ports {
		if port.Name == name && (port.Protocol == protocol || (port.Protocol == "" && protocol == core.ProtocolTCP)) {
			found = append(found, port.ContainerPort)
		}
	}
	return found
}

// selects tells whether a label selector matches; an empty one matches everything, one that the API server would have
// refused matches nothing.
func selects(selector *meta.LabelSelector, of labels.Set) bool {
	compiled, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		log.Printf("a selector is not valid and matches nothing: %v", err)
		return false
	}
	return compiled.Matches(of)
}
