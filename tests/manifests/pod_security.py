"""Pod Security Standards, profile `restricted`, as one function: what the API server would refuse a pod for.

https://kubernetes.io/docs/concepts/security/pod-security-standards, as of Kubernetes 1.37, for Linux pods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = ("RuntimeDefault", "Localhost")
APPARMOR = ("RuntimeDefault", "Localhost")
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def violations(template: dict[str, Any]) -> list[str]:
    """What keeps a pod, or the template of pods, out of a `restricted` namespace; nothing when it fits."""
    pod = template["spec"]
    found = [*_of_pod(template.get("metadata") or {}, pod)]
    for kind in _CONTAINERS:
        for container in pod.get(kind) or []:
            where = f"{kind}[{container.get('name')}]"
            found += [f"{where}: {problem}" for problem in _of_container(container, pod.get("securityContext") or {})]
    return found


def _of_pod(metadata: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is set"
    for volume in pod.get("volumes") or []:
        kinds = set(volume) - {"name"}
        if foreign := kinds - VOLUMES:
            yield f"volume {volume.get('name')}: {', '.join(sorted(foreign))} is not allowed"
    for name, value in (metadata.get("annotations") or {}).items():
        if name.startswith(_APPARMOR_ANNOTATION) and not value.startswith(("runtime/default", "localhost/")):
            yield f"AppArmor profile {value}"
    context = pod.get("securityContext") or {}
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not allowed"
    yield from _of_either(context)


def _of_container(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities.drop lacks ALL"
    if added := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"capabilities.add has {', '.join(sorted(added))}"
    if context.get("procMount", "Default") != "Default":
        yield f"procMount {context['procMount']}"
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if (context.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield f"seccompProfile is none of {', '.join(SECCOMP)}"
    yield from _of_either(context)
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort is set"
    lifecycle = container.get("lifecycle") or {}
    for handler in [container.get(name) or {} for name in _HANDLERS] + [value or {} for value in lifecycle.values()]:
        if any((handler.get(action) or {}).get("host") for action in ("httpGet", "tcpSocket")):
            yield "a probe or a lifecycle hook names a host"


def _of_either(context: dict[str, Any]) -> Iterator[str]:
    """What a pod's and a container's security context have in common."""
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("seccompProfile") and context["seccompProfile"].get("type") not in SECCOMP:
        yield f"seccompProfile {context['seccompProfile'].get('type')}"
    if context.get("appArmorProfile") and context["appArmorProfile"].get("type") not in APPARMOR:
        yield f"appArmorProfile {context['appArmorProfile'].get('type')}"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions set a type, user or role that is not allowed"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "windowsOptions.hostProcess is set"
