package policies

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// commandTime is far above what a command takes: a hundredth of a second.
const commandTime = 20 * time.Second

// hooks are the built-in chains that lead to ours.
var hooks = []string{"FORWARD", "INPUT"}

// kernel brings the node's sets and chains to what a fence says, and remembers what it has written.
type kernel struct {
	podNetwork, bridge string
	// sets and chains are what the kernel holds of ours; nil when that must be read first.
	sets   map[string]set
	chains map[string]bool
	frame  map[string][]string
	// jumps counts, in each hook, the rules that lead to our chain.
	jumps map[string]int
	// rules is how the kernel shows what was written last; "" when it was not asked since.
	rules string
}

// apply makes the fence true.
//
// The order is what makes it safe while packets flow. A pod is behind its new chain before it leaves the old one, so
// for a moment it needs the consent of both and is never without a guard; a chain is only reached once its sets are
// filled; and an address becomes known, which lets its packets pass at all, last of all. After an error everything is
// read anew by the next call.
func (k *kernel) apply(ctx context.Context, wanted fence) (err error) {
	defer func() {
		if err != nil {
			k.sets = nil
		}
	}()
	if k.sets == nil {
		if err := k.read(ctx); err != nil {
			return err
		}
	}
	before, after := k.fill(wanted), k.clear(wanted)
	chains := k.restore(wanted)
	if chains == "" {
		before, after = before+after, ""
	}
	for _, each := range []struct{ program, input string }{
		{"ipset", before}, {"iptables-restore", chains}, {"ipset", after},
	} {
		if each.input == "" {
			continue
		}
		words := []string{"restore"}
		if each.program != "ipset" {
			words = []string{"--noflush", "--wait", "5"}
		}
		if _, err := run(ctx, each.input, each.program, words...); err != nil {
			return err
		}
	}
	if chains != "" {
		k.rules = ""
	}
	k.sets, k.chains, k.frame = wanted.sets, keys(wanted.chains), wanted.frame(k.podNetwork)
	k.jumps = map[string]int{"FORWARD": 1, "INPUT": 1}
	return nil
}

// fill writes the changes of sets that come before the rules that match them.
func (k *kernel) fill(wanted fence) string {
	var text strings.Builder
	for _, member := range less(k.sets[known], wanted.sets[known]) {
		fmt.Fprintf(&text, "del %s %s\n", known, member)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		now, there := k.sets[name]
		then := wanted.sets[name]
		if !there {
			fmt.Fprintf(&text, "create %s %s\n", name, then.kind)
		}
		switch {
		case name == known || maps.Equal(now.members, then.members):
		case isGuarded(name):
			for _, member := range less(then, now) {
				fmt.Fprintf(&text, "add %s %s\n", name, member)
			}
		default:
			replace(&text, name, then)
		}
	}
	return text.String()
}

// replace exchanges a set's content in one step: no packet meets a set that is half full.
func replace(text *strings.Builder, name string, then set) {
	fmt.Fprintf(text, "create %sNEW %s\n", prefix, then.kind)
	for _, member := range slices.Sorted(maps.Keys(then.members)) {
		fmt.Fprintf(text, "add %sNEW %s\n", prefix, member)
	}
	fmt.Fprintf(text, "swap %sNEW %s\ndestroy %sNEW\n", prefix, name, prefix)
}

// clear writes the changes of sets that come after the rules: pods leave the chains that no longer guard them, sets
// that no rule matches go, and new addresses become known.
func (k *kernel) clear(wanted fence) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(k.sets)) {
		then, stays := wanted.sets[name]
		if !stays {
			fmt.Fprintf(&text, "destroy %s\n", name)
		} else if isGuarded(name) {
			for _, member := range less(k.sets[name], then) {
				fmt.Fprintf(&text, "del %s %s\n", name, member)
			}
		}
	}
	for _, member := range less(wanted.sets[known], k.sets[known]) {
		fmt.Fprintf(&text, "add %s %s\n", known, member)
	}
	return text.String()
}

// restore writes the changes of chains, for one transaction; "" when there are none.
func (k *kernel) restore(wanted fence) string {
	frame := wanted.frame(k.podNetwork)
	if maps.EqualFunc(k.frame, frame, slices.Equal[[]string]) && maps.Equal(k.chains, keys(wanted.chains)) {
		return ""
	}
	var text strings.Builder
	text.WriteString("*filter\n")
	// With nothing remembered of the content, every chain is written; otherwise a chain that is there is right.
	fresh := maps.Clone(frame)
	for name, rules := range wanted.chains {
		if k.frame == nil || !k.chains[name] {
			fresh[name] = rules
		}
	}
	names := slices.Sorted(maps.Keys(fresh))
	for _, name := range names {
		fmt.Fprintf(&text, ":%s - [0:0]\n", name)
	}
	for _, name := range names {
		for _, rule := range fresh[name] {
			fmt.Fprintf(&text, "-A %s %s\n", name, rule)
		}
	}
	// First in its hook: what kube-proxy accepts is not asked any further.
	for _, hook := range hooks {
		text.WriteString(strings.Repeat(fmt.Sprintf("-D %s -j %s%s\n", hook, prefix, hook), k.jumps[hook]))
		fmt.Fprintf(&text, "-I %s 1 -j %s%s\n", hook, prefix, hook)
	}
	for _, name := range slices.Sorted(maps.Keys(k.chains)) {
		if _, stays := wanted.chains[name]; !stays {
			fmt.Fprintf(&text, "-F %s\n-X %s\n", name, name)
		}
	}
	text.WriteString("COMMIT\n")
	return text.String()
}

// verify compares the kernel with what was written into it, and makes the next apply begin anew where they differ.
func (k *kernel) verify(ctx context.Context) error {
	if k.sets == nil {
		return nil
	}
	sets, err := readSets(ctx)
	if err != nil {
		return err
	}
	rules, err := readRules(ctx)
	if err != nil {
		return err
	}
	same := maps.EqualFunc(sets, k.sets, func(a, b set) bool { return maps.Equal(a.members, b.members) })
	if !same || rules != k.rules || !leads(rules) {
		k.sets = nil
		return nil // which has everything read, and the rest looked after as well
	}
	return k.refuseIPv6(ctx)
}

// remember notes how the kernel shows what is written, for verify to compare with.
func (k *kernel) remember(ctx context.Context) (err error) {
	if k.rules == "" {
		k.rules, err = readRules(ctx)
	}
	return err
}

// read learns what an earlier life, or somebody else, has left.
func (k *kernel) read(ctx context.Context) error {
	sets, err := readSets(ctx)
	if err != nil {
		return err
	}
	rules, err := readRules(ctx)
	if err != nil {
		return err
	}
	if _, unfinished := sets[prefix+"NEW"]; unfinished {
		if _, err := run(ctx, "", "ipset", "destroy", prefix+"NEW"); err != nil {
			return err
		}
		delete(sets, prefix+"NEW")
	}
	k.sets, k.chains, k.frame, k.jumps, k.rules = sets, map[string]bool{}, nil, map[string]int{}, ""
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(words[0], ":"+ingress.prefix()), strings.HasPrefix(words[0], ":"+egress.prefix()):
			k.chains[strings.TrimPrefix(words[0], ":")] = true
		case words[0] == "-A" && slices.Contains(hooks, words[1]) && strings.Contains(line, " -j "+prefix):
			k.jumps[words[1]]++
		}
	}
	return k.refuseIPv6(ctx)
}

// refuseIPv6 closes the way around: pods have IPv6 addresses of their bridge only, which no policy speaks of.
func (k *kernel) refuseIPv6(ctx context.Context) error {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return nil
	}
	saved, err := run(ctx, "", "ip6tables-save", "-t", "filter")
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString("*filter\n")
	for _, hook := range hooks {
		rule := fmt.Sprintf("-A %s -i %s -m comment --comment %sno-ipv6 -j DROP", hook, k.bridge, prefix)
		if !strings.Contains(saved, rule) {
			text.WriteString(strings.Replace(rule, "-A "+hook, "-I "+hook+" 1", 1) + "\n")
		}
	}
	if text.Len() > len("*filter\n") {
		_, err = run(ctx, text.String()+"COMMIT\n", "ip6tables-restore", "--noflush", "--wait", "5")
	}
	return err
}

// readSets gives our sets as the kernel holds them.
func readSets(ctx context.Context) (map[string]set, error) {
	saved, err := run(ctx, "", "ipset", "save")
	if err != nil {
		return nil, err
	}
	found := fence{sets: map[string]set{}}
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		if len(words) < 3 || !strings.HasPrefix(words[1], prefix) {
			continue
		}
		switch words[0] {
		case "create":
			found.set(words[1], words[2])
		case "add":
			found.set(words[1], "")[strings.Join(words[2:], " ")] = true
		}
	}
	return found.sets, nil
}

// readRules gives our chains and rules as the kernel shows them, with the first rule of each hook.
func readRules(ctx context.Context) (string, error) {
	saved, err := run(ctx, "", "iptables-save", "-t", "filter")
	if err != nil {
		return "", err
	}
	var found strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		first := len(words) > 1 && words[0] == "-A" && slices.Contains(hooks, words[1]) && !seen[words[1]]
		if first {
			seen[words[1]] = true
		}
		if first || strings.Contains(line, prefix) {
			found.WriteString(line)
		}
	}
	return found.String(), nil
}

// leads tells whether our chains come first in their hooks, as kube-proxy's own start can end.
func leads(rules string) bool {
	seen := map[string]bool{}
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		if words[0] != "-A" || !slices.Contains(hooks, words[1]) || seen[words[1]] {
			continue
		}
		seen[words[1]] = true
		if strings.Join(words[2:], " ") != "-j "+prefix+words[1] {
			return false
		}
	}
	return len(seen) == len(hooks)
}

// isGuarded tells a set of pods behind a chain, which changes member by member, from one that is replaced as a whole.
func isGuarded(name string) bool {
	return strings.HasPrefix(name, ingress.prefix()) || strings.HasPrefix(name, egress.prefix())
}

// less lists what one set has and another has not.
func less(of, without set) (members []string) {
	for _, member := range slices.Sorted(maps.Keys(of.members)) {
		if !without.members[member] {
			members = append(members, member)
		}
	}
	return members
}

func keys[V any](of map[string]V) map[string]bool {
	found := map[string]bool{}
	for key := range of {
		found[key] = true
	}
	return found
}

// run executes a program with a text as its input and gives what it printed.
func run(ctx context.Context, input, program string, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	command := exec.CommandContext(ctx, program, words...)
	command.Stdin = strings.NewReader(input)
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(words, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.String(), nil
}
