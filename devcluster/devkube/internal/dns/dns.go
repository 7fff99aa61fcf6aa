// Package dns is CoreDNS with the few plugins that a cluster's names need.
package dns

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"       // the node's address only
	_ "github.com/coredns/coredns/plugin/cache"      // answers for the time to live in the Corefile
	_ "github.com/coredns/coredns/plugin/errors"     // logs what went wrong
	_ "github.com/coredns/coredns/plugin/health"     // liveness
	_ "github.com/coredns/coredns/plugin/kubernetes" // names of services and pods
	_ "github.com/coredns/coredns/plugin/ready"      // readiness: the cluster's objects have been read once
)

// Main runs CoreDNS until it is stopped; its flags are CoreDNS's own (-conf FILE).
func Main() int {
	coremain.Run()
	return 0
}
