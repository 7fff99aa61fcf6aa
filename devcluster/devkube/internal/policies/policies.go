// Package policies enforces NetworkPolicy objects on one node, by iptables and ipset in the network namespace it runs in.
//
// For development and tests only. The packages of a production agent are not to be had as modules, and a fence that
// nobody holds up proves nothing about the charts. It keeps to networking.k8s.io/v1; what that leaves open is decided
// in the open in the ADR beside the code: what the node sends to its own pods passes, what a pod sends to its node is
// judged like anything else, connections that are no longer allowed end.
//
// fence.go and match.go compute, without effects, the sets and rules of one moment; kernel.go writes them;
// arrivals.go makes a pod's start wait for them.
package policies

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// verifyInterval is how long a rule that somebody removed by hand can be missing.
	verifyInterval = 10 * time.Second
	// retryInterval follows a pass that failed; mostly another program changed the same table in the same moment.
	retryInterval = 500 * time.Millisecond
	// batchPause lets a burst of events become one pass.
	batchPause = 10 * time.Millisecond
)

type options struct {
	kubeconfig, node, bridge, socket, health string
	podNetwork                               netip.Prefix
}

// Main enforces until SIGTERM; the rules stay when it ends.
func Main() int {
	var wanted options
	flags := flag.NewFlagSet("policies", flag.ExitOnError)
	flags.StringVar(&wanted.kubeconfig, "kubeconfig", "", "how to reach the API server")
	flags.StringVar(&wanted.node, "node", "", "name of this node")
	flags.StringVar(&wanted.bridge, "bridge", "", "interface of this node that its pods are plugged into")
	flags.StringVar(&wanted.socket, "socket", "", "where the network plugin tells of pods")
	flags.StringVar(&wanted.health, "health", "", "HOST:PORT to answer GET /ready on")
	flags.TextVar(&wanted.podNetwork, "pod-network", netip.Prefix{}, "addresses of the pods of all nodes")
	_ = flags.Parse(os.Args[1:])
	for _, each := range []string{wanted.kubeconfig, wanted.node, wanted.bridge, wanted.socket, wanted.health} {
		if each == "" || !wanted.podNetwork.IsValid() {
			fmt.Fprintln(os.Stderr, "every flag is needed")
			flags.Usage()
			return 2
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := enforce(ctx, wanted); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func enforce(ctx context.Context, wanted options) error {
	config, err := clientcmd.BuildConfigFromFlags("", wanted.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	trigger := func() {
		select {
		case changed <- struct{}{}:
		default: // a pass is due already, and sees this too
		}
	}
	told := newArrivals(trigger)
	cluster, err := watch(ctx, client, wanted, told, trigger)
	if err != nil {
		return err
	}
	if err := told.serve(ctx, wanted.socket); err != nil {
		return err
	}
	go serveHealth(ctx, wanted.health, told)
	fence := &kernel{podNetwork: wanted.podNetwork.String(), bridge: wanted.bridge}
	trigger()
	ticks := time.NewTicker(verifyInterval)
	defer ticks.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-ticks.C:
			due = true
		}
		if err := pass(ctx, cluster, fence, due); err != nil && ctx.Err() == nil {
			log.Print(err)
			time.AfterFunc(retryInterval, trigger)
		}
		time.Sleep(batchPause)
	}
}

// pass makes the kernel hold what the cluster asks for now; every so often it looks whether the kernel still does.
func pass(ctx context.Context, cluster *cluster, fence *kernel, verify bool) error {
	seen, behind, err := cluster.look()
	if err == nil && verify {
		err = fence.verify(ctx)
	}
	if err == nil {
		err = fence.apply(ctx, build(seen))
	}
	if err == nil && verify {
		err = fence.remember(ctx)
	}
	cluster.told.applied(behind, err)
	return err
}

// cluster is the caches of what policies speak of, and what the node's plugin told.
type cluster struct {
	options
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	told       *arrivals
}

// watch fills the caches and has every change of them trigger a pass.
func watch(ctx context.Context, client kubernetes.Interface, wanted options, told *arrivals, trigger func()) (*cluster, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip))
	found := &cluster{
		options:    wanted,
		pods:       factory.Core().V1().Pods().Lister(),
		namespaces: factory.Core().V1().Namespaces().Lister(),
		policies:   factory.Networking().V1().NetworkPolicies().Lister(),
		told:       told,
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { trigger() },
			UpdateFunc: func(any, any) { trigger() },
			DeleteFunc: func(gone any) {
				if last, missed := gone.(cache.DeletedFinalStateUnknown); missed {
					gone = last.Obj
				}
				if pod, isPod := gone.(*core.Pod); isPod {
					told.forget(string(pod.UID))
				}
				trigger()
			},
		})
		if err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("%s could not be read before the end", kind)
		}
	}
	return found, nil
}

// strip drops what takes the most room in a cache and decides nothing.
func strip(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// look gives the present moment, and the address it has for each pod.
func (c *cluster) look() (world, map[string]string, error) {
	seen, behind := world{namespaces: map[string]labels.Set{}}, map[string]string{}
	namespaces, err := c.namespaces.List(labels.Everything())
	if err != nil {
		return seen, nil, err
	}
	for _, each := range namespaces {
		seen.namespaces[each.Name] = each.Labels
	}
	if seen.policies, err = c.policies.List(labels.Everything()); err != nil {
		return seen, nil, err
	}
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return seen, nil, err
	}
	// An address can stand at two pods when one has just ended: what the plugin told counts most, then youth.
	slices.SortFunc(pods, func(a, b *core.Pod) int {
		return cmp.Or(
			cmp.Compare(c.rank(a), c.rank(b)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
			cmp.Compare(a.UID, b.UID),
		)
	})
	taken := map[string]bool{}
	for _, each := range pods {
		found := c.resolve(each)
		if found == nil || taken[found.address] {
			continue
		}
		taken[found.address] = true
		behind[found.uid] = found.address
		seen.pods = append(seen.pods, found)
	}
	return seen, behind, nil
}

func (c *cluster) rank(each *core.Pod) int {
	if _, told := c.told.address(string(each.UID)); told {
		return 0
	}
	return 1
}

// resolve gives what a fence needs of a pod; nil for one without an address on the pod network: one on its node's
// network is the node, one that has ended or has not begun sends nothing, and a simulated one does not exist.
func (c *cluster) resolve(each *core.Pod) *pod {
	if each.Spec.HostNetwork {
		return nil
	}
	address, told := c.told.address(string(each.UID))
	if !told && each.Status.Phase != core.PodSucceeded && each.Status.Phase != core.PodFailed {
		address = each.Status.PodIP
	}
	parsed, err := netip.ParseAddr(address)
	if err != nil || !c.podNetwork.Contains(parsed) {
		return nil
	}
	found := &pod{
		namespace: each.Namespace, uid: string(each.UID), address: address, labels: each.Labels,
		local: each.Spec.NodeName == c.node,
	}
	for _, container := range slices.Concat(each.Spec.InitContainers, each.Spec.Containers) {
		found.ports = append(found.ports, container.Ports...)
	}
	return found
}

// serveHealth answers whether the kernel holds what the cluster asks for.
func serveHealth(ctx context.Context, address string, told *arrivals) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(response http.ResponseWriter, _ *http.Request) {
		told.lock.Lock()
		ready, failure := told.behind != nil, told.failure
		told.lock.Unlock()
		if !ready || failure != nil {
			http.Error(response, fmt.Sprintf("not enforced: %v", failure), http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: waitTime}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Printf("readiness cannot be told: %v", err)
	}
}
