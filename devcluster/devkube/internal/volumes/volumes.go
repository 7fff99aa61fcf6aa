// Package volumes provisions persistent volumes of type "local": one directory for each claim.
//
// "local" and not "hostPath", because kubelet applies a pod's fsGroup to local volumes only; a restricted,
// non-root pod can then write to its claim exactly as it would on a cloud disk. The directory goes with the claim.
package volumes

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisionerName is what the StorageClass names.
const provisionerName = "storeplane.dev/local"

// Main provisions and removes volumes until SIGTERM.
func Main() int {
	flags := flag.NewFlagSet("volumes", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	root := flags.String("root", "", "directory that holds one directory for each volume")
	_ = flags.Parse(os.Args[1:])
	if *kubeconfig == "" || !filepath.IsAbs(*root) {
		flags.Usage()
		return 2
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Printf("kubeconfig: %v", err)
		return 1
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Printf("client: %v", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	controller.NewProvisionController(ctx, client, provisionerName, &directories{root: *root},
		controller.LeaderElection(false)).Run(ctx)
	return 0
}

// directories implements controller.Provisioner on one folder of the machine, which every node sees.
type directories struct {
	root string
}

// Provision makes the claim's directory and pins the volume to the node that the scheduler chose; the driver names
// its nodes by their host name.
func (d *directories) Provision(_ context.Context, options controller.ProvisionOptions) (
	*v1.PersistentVolume, controller.ProvisioningState, error,
) {
	if options.SelectedNodeName == "" {
		return nil, controller.ProvisioningFinished, fmt.Errorf("the StorageClass must bind on first use (WaitForFirstConsumer)")
	}
	path := filepath.Join(d.root, options.PVName)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, controller.ProvisioningNoChange, err
	}
	claim := options.PVC
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{
					Key:      v1.LabelHostname,
					Operator: v1.NodeSelectorOpIn,
					Values:   []string{options.SelectedNodeName},
				}},
			}}}},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the directory of a released volume. The path is rebuilt from the volume's name and compared,
// so that a volume object edited by hand cannot point the removal elsewhere.
func (d *directories) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	path := filepath.Join(d.root, volume.Name)
	if volume.Spec.Local == nil || volume.Spec.Local.Path != path {
		return fmt.Errorf("volume %s is not a directory of this provisioner", volume.Name)
	}
	return os.RemoveAll(path)
}
