// Command devkube is every program of a small, real Kubernetes in one binary.
//
// The first argument picks the program; the rest are that program's own flags, exactly as upstream documents
// them. One binary instead of nine shares one dependency set, is built once and is cached by content.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics of the components
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"storeplane.dev/devcluster/devkube/internal/dns"
	"storeplane.dev/devcluster/devkube/internal/forward"
	"storeplane.dev/devcluster/devkube/internal/policies"
	"storeplane.dev/devcluster/devkube/internal/router"
	"storeplane.dev/devcluster/devkube/internal/volumes"
)

// programs maps the first argument to a program. Each sees os.Args as if it had been started under its own name.
var programs = map[string]func() int{
	"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) },
	"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kube-proxy":              func() int { return cli.Run(proxy.NewProxyCommand()) },
	"kubelet":                 func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
	"kubectl":                 func() int { return cli.Run(kubectl.NewDefaultKubectlCommand()) },
	"coredns":                 dns.Main,
	"volumes":                 volumes.Main,
	"router":                  router.Main,
	"forward":                 forward.Main,
	"policies":                policies.Main,
}

func main() {
	if len(os.Args) > 1 {
		if program, known := programs[os.Args[1]]; known {
			os.Args = os.Args[1:]
			os.Exit(program())
		}
	}
	names := slices.Sorted(maps.Keys(programs))
	fmt.Fprintf(os.Stderr, "usage: devkube PROGRAM [FLAG ...]\nprograms: %s\n", strings.Join(names, " "))
	os.Exit(2)
}
