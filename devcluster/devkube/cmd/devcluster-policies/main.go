// Command devcluster-policies is the last network plugin of a node: it makes a pod's start wait for its fence.
//
// It tells the node's policies agent the address that the plugins before it gave the pod, and returns once the agent
// has the pod behind its rules; at the pod's end it tells that the address is given back. It changes nothing itself
// and passes on the result of the plugins before it. A program of its own because one is executed for every pod.
//
// Source: https://www.cni.dev/docs/spec/
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// callTime is more than the agent takes to say that it cannot.
const callTime = 20 * time.Second

// Error codes of the specification: below 100 is its own, from there on the plugin's.
const (
	invalidConfiguration = 7
	tryAgainLater        = 11
)

type configuration struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
	PrevResult *struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	} `json:"prevResult"`
}

func main() {
	input, err := io.ReadAll(os.Stdin)
	var given configuration
	var raw struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err == nil {
		err = json.Unmarshal(input, &given)
	}
	if err == nil {
		err = json.Unmarshal(input, &raw)
	}
	if err != nil {
		fail(given.CNIVersion, invalidConfiguration, err)
	}
	switch os.Getenv("CNI_COMMAND") {
	case "ADD":
		if given.PrevResult == nil || len(given.PrevResult.IPs) == 0 {
			fail(given.CNIVersion, invalidConfiguration, fmt.Errorf("it must come after a plugin that gives an address"))
		}
		address, _, _ := strings.Cut(given.PrevResult.IPs[0].Address, "/")
		if err := tell(http.MethodPut, given.Socket, address); err != nil {
			fail(given.CNIVersion, tryAgainLater, err)
		}
		_, _ = os.Stdout.Write(raw.PrevResult)
	case "DEL":
		// An end is never held up: without an agent nothing changes, and the address stays behind its old rules.
		_ = tell(http.MethodDelete, given.Socket, "")
	case "VERSION":
		fmt.Print(`{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}`)
	}
}

// tell makes the one call, and waits for the agent to have done it.
func tell(method, socket, address string) error {
	uid := argument("K8S_POD_UID")
	if uid == "" {
		return fmt.Errorf("the runtime does not say which pod it is about (K8S_POD_UID)")
	}
	body, err := json.Marshal(map[string]string{"sandbox": os.Getenv("CNI_CONTAINERID"), "address": address})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://policies/pods/"+uid, bytes.NewReader(body))
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	response, err := (&http.Client{Transport: &http.Transport{DialContext: dial}}).Do(request)
	if err != nil {
		return fmt.Errorf("the node's policies agent does not answer (`devcluster up` starts it again): %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("the node's policies agent refuses: %s", bytes.TrimSpace(said))
	}
	return nil
}

// argument gives a value of CNI_ARGS, which is written "A=b;C=d".
func argument(name string) string {
	for _, each := range strings.Split(os.Getenv("CNI_ARGS"), ";") {
		if value, found := strings.CutPrefix(each, name+"="); found {
			return value
		}
	}
	return ""
}

func fail(version string, code int, cause error) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": version, "code": code, "msg": cause.Error()})
	os.Exit(1)
}
