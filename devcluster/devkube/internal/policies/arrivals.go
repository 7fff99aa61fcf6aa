package policies

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"
)

// waitTime is how long a pod's start, or end, waits for the fence. It is passed only when something is broken: a pod
// takes a few hundredths of a second.
const waitTime = 10 * time.Second

// arrival is a pod's sandbox and its address, as the network plugin told; an address of "" has been given back.
type arrival struct {
	Sandbox string `json:"sandbox"`
	Address string `json:"address"`
}

// arrivals is what this node's network plugin told about pods, long before the API server hears of their addresses.
//
// It is the plugin that makes the fence close in time: it tells an address before the pod's first process runs, and
// waits until the address is behind its rules; and at the end it tells that an address is given back, before another
// pod can get it.
type arrivals struct {
	lock   sync.Mutex
	byUID  map[string]arrival
	behind map[string]string
	// changed is closed, and replaced, when behind is another.
	changed chan struct{}
	failure error
	trigger func()
}

func newArrivals(trigger func()) *arrivals {
	return &arrivals{byUID: map[string]arrival{}, changed: make(chan struct{}), trigger: trigger}
}

// address gives what the plugin told of a pod, and whether it told anything.
func (a *arrivals) address(uid string) (address string, told bool) {
	a.lock.Lock()
	defer a.lock.Unlock()
	arrived, told := a.byUID[uid]
	return arrived.Address, told
}

// forget drops a pod that is no more.
func (a *arrivals) forget(uid string) {
	a.lock.Lock()
	defer a.lock.Unlock()
	delete(a.byUID, uid)
}

// applied publishes the addresses that are in the kernel now, by pod, or why they could not be written.
func (a *arrivals) applied(behind map[string]string, failure error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.failure = failure
	if failure == nil {
		a.behind = behind
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

// wait returns once the kernel has this address for the pod, or ("") none.
func (a *arrivals) wait(ctx context.Context, uid, address string) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		a.lock.Lock()
		now, changed, failure := a.behind[uid], a.changed, a.failure
		a.lock.Unlock()
		if now == address {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if failure == nil {
				failure = fmt.Errorf("the API server has not told of pod %s", uid)
			}
			return fmt.Errorf("the address %q is not behind its rules after %s: %w", address, waitTime, failure)
		}
	}
}

// serve answers the network plugin on a socket until the context ends.
func (a *arrivals) serve(ctx context.Context, socket string) error {
	_ = os.Remove(socket) // of a life before
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /pods/{uid}", a.arrive)
	mux.HandleFunc("DELETE /pods/{uid}", a.leave)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: waitTime}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}

func (a *arrivals) arrive(response http.ResponseWriter, request *http.Request) {
	var told arrival
	err := json.NewDecoder(http.MaxBytesReader(response, request.Body, 1<<16)).Decode(&told)
	if _, unreadable := netip.ParseAddr(told.Address); err != nil || unreadable != nil {
		http.Error(response, "want a sandbox and an address", http.StatusBadRequest)
		return
	}
	uid := request.PathValue("uid")
	a.lock.Lock()
	a.byUID[uid] = told
	a.lock.Unlock()
	a.trigger()
	if err := a.wait(request.Context(), uid, told.Address); err != nil {
		// The runtime tries again with another sandbox, or the pod is gone, and nobody will ask to forget it.
		a.lock.Lock()
		if a.byUID[uid] == told {
			delete(a.byUID, uid)
		}
		a.lock.Unlock()
		a.trigger()
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
	}
}

func (a *arrivals) leave(response http.ResponseWriter, request *http.Request) {
	var told arrival
	if err := json.NewDecoder(http.MaxBytesReader(response, request.Body, 1<<16)).Decode(&told); err != nil {
		http.Error(response, "want a sandbox", http.StatusBadRequest)
		return
	}
	uid := request.PathValue("uid")
	a.lock.Lock()
	// A sandbox that was replaced long ago may be cleared away late: the pod's present one is not meant.
	current := a.byUID[uid].Sandbox == told.Sandbox
	if current {
		a.byUID[uid] = arrival{Sandbox: told.Sandbox}
	}
	a.lock.Unlock()
	if !current {
		return
	}
	a.trigger()
	if err := a.wait(request.Context(), uid, ""); err != nil {
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
	}
}
