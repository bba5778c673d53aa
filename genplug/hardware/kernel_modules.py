"""The kernel module or command that creates a well-known device node, for the reason of a missing node. Pure.

Sources: the drivers of the kernel, each with the name under which it registers the node, and
Documentation/admin-guide/devices.txt; for NVIDIA, nvidia-modprobe(1), because that driver creates no nodes itself.
"""

from fnmatch import fnmatchcase

_MODULES = (
    # drivers/infiniband/core: ucma.c, uverbs_main.c, user_mad.c
    ("/dev/infiniband/rdma_cm", "rdma_ucm"),
    ("/dev/infiniband/uverbs*", "ib_uverbs"),
    ("/dev/infiniband/umad*", "ib_umad"),
    ("/dev/infiniband/issm*", "ib_umad"),
    ("/dev/hfi1_*", "hfi1"),
    # drivers/vfio/container.c, drivers/iommu/iommufd/main.c
    ("/dev/vfio/vfio", "vfio"),
    ("/dev/iommu", "iommufd"),
    # virt/kvm/kvm_main.c, which the module of the processor calls
    ("/dev/kvm", "kvm_intel or kvm_amd"),
    # drivers/vhost
    ("/dev/vhost-net", "vhost_net"),
    ("/dev/vhost-vsock", "vhost_vsock"),
    ("/dev/vhost-vdpa-*", "vhost_vdpa"),
    # net/vmw_vsock/af_vsock.c
    ("/dev/vsock", "vsock"),
    # drivers/vdpa/vdpa_user/vduse_dev.c
    ("/dev/vduse/control", "vduse"),
    # drivers/net: tun.c, tap.c with macvtap.c or ipvlan/ipvtap.c, ppp/ppp_generic.c
    ("/dev/net/tun", "tun"),
    ("/dev/tap[0-9*?[]*", "macvtap or ipvtap"),
    ("/dev/ppp", "ppp_generic"),
    # fs/fuse: dev.c, cuse.c
    ("/dev/fuse", "fuse"),
    ("/dev/cuse", "cuse"),
    # drivers/gpu/drm/amd/amdkfd/kfd_chardev.c
    ("/dev/kfd", "amdgpu"),
    # drivers/crypto/ccp/sev-dev.c
    ("/dev/sev", "ccp"),
    # drivers/dma-buf/udmabuf.c, drivers/misc/ntsync.c
    ("/dev/udmabuf", "udmabuf"),
    ("/dev/ntsync", "ntsync"),
    # drivers/input/misc/uinput.c, drivers/hid/uhid.c
    ("/dev/uinput", "uinput"),
    ("/dev/uhid", "uhid"),
    # drivers/i2c/i2c-dev.c, drivers/spi/spidev.c
    ("/dev/i2c-*", "i2c_dev"),
    ("/dev/spidev*", "spidev"),
    # sound/core: seq/seq_clientmgr.c, timer.c
    ("/dev/snd/seq", "snd_seq"),
    ("/dev/snd/timer", "snd_timer"),
    # drivers/char/ipmi/ipmi_devintf.c, drivers/misc/mei/main.c
    ("/dev/ipmi[0-9*?[]*", "ipmi_devintf"),
    ("/dev/mei[0-9*?[]*", "mei_me"),
    # drivers/block/loop.c, drivers/md/dm-ioctl.c, fs/btrfs/super.c, drivers/nvme/host/fabrics.c
    ("/dev/loop-control", "loop"),
    ("/dev/mapper/control", "dm_mod"),
    ("/dev/btrfs-control", "btrfs"),
    ("/dev/nvme-fabrics", "nvme_fabrics"),
    # drivers/android/binder.c
    ("/dev/binder", "binder_linux"),
    # drivers/crypto/intel/qat/qat_common/adf_ctl_drv.c
    ("/dev/qat_adf_ctl", "intel_qat"),
    # Modules outside the kernel tree
    ("/dev/neuron[0-9*?[]*", "neuron"),
    ("/dev/gdrdrv", "gdrdrv"),
    ("/dev/knem", "knem"),
    ("/dev/xpmem", "xpmem"),
)
"""Globs of paths, and the module that creates the node. A glob also matches a glob that begins like the paths."""

_NVIDIA = (
    ("/dev/nvidia-uvm", "nvidia_uvm", "nvidia-modprobe -u -c 0"),
    ("/dev/nvidia-uvm-tools", "nvidia_uvm", "nvidia-modprobe -u -c 0"),
    ("/dev/nvidia-modeset", "nvidia_modeset", "nvidia-modprobe -m"),
    ("/dev/nvidiactl", "nvidia", "nvidia-modprobe -c 0"),
    ("/dev/nvidia[0-9*?[]*", "nvidia", "nvidia-modprobe -c NUMBER"),
)
"""Globs of paths, the module that serves the node, and the command that loads the module and creates the node."""


def missing_node_hint(path: str) -> str:
    """Return how to create the missing device node at ``path``, a path or a glob; empty if the node is not known.

    The hint is a clause in the imperative, for an administrator of the node.
    """
    for pattern, module, command in _NVIDIA:
        if fnmatchcase(path, pattern):
            return f"run '{command}' on the node, which loads the kernel module {module} and creates it"
    for pattern, module in _MODULES:
        if fnmatchcase(path, pattern):
            return f"load the kernel module {module} on the node, which creates it"
    return ""
