// Package router serves Ingress objects on one port: enough of an ingress controller to open a shop in a browser.
//
// For development only: plain HTTP, no TLS, no annotations. The charts are written for any ingress class.
package router

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// Main serves until SIGTERM.
func Main() int {
	flags := flag.NewFlagSet("router", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	listen := flags.String("listen", "", "HOST:PORT to serve on")
	_ = flags.Parse(os.Args[1:])
	if *kubeconfig == "" || *listen == "" {
		flags.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *listen); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func run(ctx context.Context, kubeconfig, listen string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	table := &table{
		ingresses: factory.Networking().V1().Ingresses().Lister(),
		services:  factory.Core().V1().Services().Lister(),
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	server := &http.Server{Addr: listen, Handler: table, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	log.Printf("serving Ingress objects on %s", listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// table answers requests from the cluster's Ingress and Service objects, always as they are now.
type table struct {
	ingresses networkinglisters.IngressLister
	services  corelisters.ServiceLister
}

// ServeHTTP proxies to the Service of the most specific matching rule: exact host and path first, then the longest prefix.
func (t *table) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	host := request.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	namespace, backend := t.match(strings.ToLower(host), request.URL.Path)
	if backend == nil {
		http.Error(response, fmt.Sprintf("no Ingress has host %q and path %q", host, request.URL.Path), http.StatusNotFound)
		return
	}
	address, err := t.address(namespace, backend.Service)
	if err != nil {
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(rewritten *httputil.ProxyRequest) {
			rewritten.SetURL(&url.URL{Scheme: "http", Host: address})
			rewritten.Out.Host = rewritten.In.Host // shops build absolute links from the name they were asked by
			rewritten.SetXForwarded()
		},
		ErrorHandler: func(response http.ResponseWriter, _ *http.Request, err error) {
			http.Error(response, fmt.Sprintf("service %s/%s does not answer: %v", namespace, backend.Service.Name, err), http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(response, request)
}

// match finds the backend for a host and path, and the namespace it is in.
func (t *table) match(host, path string) (string, *networking.IngressBackend) {
	ingresses, err := t.ingresses.List(labels.Everything())
	if err != nil {
		return "", nil
	}
	var namespace string
	var best *networking.IngressBackend
	bestScore := -1
	for _, ingress := range ingresses {
		for _, rule := range ingress.Spec.Rules {
			if !hostMatches(rule.Host, host) || rule.HTTP == nil {
				continue
			}
			for i := range rule.HTTP.Paths {
				candidate := &rule.HTTP.Paths[i]
				score := specificity(candidate, path)
				if score > bestScore && candidate.Backend.Service != nil {
					bestScore, best, namespace = score, &candidate.Backend, ingress.Namespace
				}
			}
		}
	}
	return namespace, best
}

// hostMatches reports whether an Ingress host, possibly "*.example.org", covers a request's host.
func hostMatches(pattern, host string) bool {
	if suffix, wildcard := strings.CutPrefix(pattern, "*"); wildcard {
		label, found := strings.CutSuffix(host, suffix)
		return found && label != "" && !strings.Contains(label, ".")
	}
	return pattern == "" || strings.EqualFold(pattern, host)
}

// specificity is -1 for no match; an exact path outranks every prefix, a longer prefix a shorter one.
func specificity(candidate *networking.HTTPIngressPath, path string) int {
	if candidate.PathType != nil && *candidate.PathType == networking.PathTypeExact {
		if candidate.Path == path {
			return 1 << 20
		}
		return -1
	}
	prefix := strings.TrimSuffix(candidate.Path, "/")
	if path == prefix || strings.HasPrefix(path, prefix+"/") {
		return len(prefix)
	}
	return -1
}

// address resolves a backend to the Service's cluster address; kube-proxy of the same network does the rest.
func (t *table) address(namespace string, backend *networking.IngressServiceBackend) (string, error) {
	service, err := t.services.Services(namespace).Get(backend.Name)
	if err != nil {
		return "", fmt.Errorf("service %s/%s: %w", namespace, backend.Name, err)
	}
	for _, port := range service.Spec.Ports {
		if port.Port == backend.Port.Number || (backend.Port.Name != "" && port.Name == backend.Port.Name) {
			return net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(port.Port)), nil
		}
	}
	return "", fmt.Errorf("service %s/%s has no port %v", namespace, backend.Name, backend.Port)
}
