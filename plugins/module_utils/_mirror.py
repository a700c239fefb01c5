# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of kos.fleet.mirror, and what a mirror's folder is: which file may come when. Pure."""

from __future__ import annotations

import re
import typing as t

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "source": {"type": "path"},
    "root": {"type": "path", "default": "/srv/kos-mirror"},
    "port": {"type": "int", "default": 8080},
    "address": {"type": "str", "default": ""},
    "server_name": {"type": "str", "default": "_"},
    "tls_certificate": {"type": "path"},
    "tls_key": {"type": "path", "no_log": False},
}

FOLDERS = ("metadata", "releases", "patches")
SERVICE = "kos-mirror.service"
CONFIG = "/etc/kos-mirror"

# Named by version or by hash: once there, never another content.
_IMMUTABLE = re.compile(r"^(metadata/[0-9]+\.[a-z-]+\.json|(releases|patches)/.+)$")
# Clients look at the timestamp first, so what it leads to has to be there before it.
_ORDER = ("releases/", "patches/", "metadata/")


def rank(path: str) -> tuple[int, str]:
    """Return the place of a file in the order in which a mirror gets new files; the timestamp is the last."""
    if path == "metadata/timestamp.json":
        return (len(_ORDER) + 1, path)
    for index, prefix in enumerate(_ORDER):
        if path.startswith(prefix):
            return (index if immutable(path) else len(_ORDER), path)
    return (len(_ORDER), path)


def immutable(path: str) -> bool:
    """Whether a file of that name never changes its content."""
    return bool(_IMMUTABLE.match(path))


def foreign(there: t.Iterable[str]) -> str | None:
    """Return a path that no mirror has, if there is one."""
    return min((path for path in there if path.partition("/")[0] not in FOLDERS), default=None)


def plan(
    wanted: t.Mapping[str, t.Mapping[str, t.Any]], there: t.Mapping[str, t.Mapping[str, t.Any]]
) -> tuple[list[str], list[str]]:
    """Return the files to send, in order, and those to remove afterwards.

    wanted, there: path to `size`, and `sha256` where the name says no hash: another repository has other
    metadata of the same names.
    """
    send = [
        path
        for path, entry in wanted.items()
        if path not in there
        or there[path]["size"] != entry["size"]
        or there[path].get("sha256") != entry.get("sha256")
    ]
    remove = [path for path in there if path not in wanted]
    return sorted(send, key=rank), sorted(remove, key=rank, reverse=True)


def nginx_conf(options: t.Mapping[str, t.Any]) -> str:
    """Return the configuration of the mirror's own nginx, which runs without root."""
    tls = bool(options["tls_certificate"])
    address = f"{options['address']}:" if options["address"] else ""
    credentials = "/run/credentials/kos-mirror.service"
    listen = f"    listen {address}{options['port']}{' ssl' if tls else ''};\n"
    if not options["address"]:
        listen += f"    listen [::]:{options['port']}{' ssl' if tls else ''};\n"
    ssl = (
        f"    ssl_certificate {credentials}/tls.crt;\n"
        f"    ssl_certificate_key {credentials}/tls.key;\n"
        "    ssl_protocols TLSv1.2 TLSv1.3;\n"
        if tls
        else ""
    )
    return _NGINX.format(root=options["root"], listen=listen, ssl=ssl, name=options["server_name"])


def unit(options: t.Mapping[str, t.Any]) -> str:
    """Return the service that runs it: an account of its own, no capability beyond a low port."""
    low = options["port"] < 1024
    capability = "CAP_NET_BIND_SERVICE" if low else ""
    credentials = (
        f"LoadCredential=tls.crt:{CONFIG}/tls.crt\nLoadCredential=tls.key:{CONFIG}/tls.key\n"
        if options["tls_certificate"]
        else ""
    )
    return _UNIT.format(capability=capability, credentials=credentials)


_NGINX = """\
# Written by role kos.fleet.mirror; what is changed here is lost.
pid /run/kos-mirror/nginx.pid;
error_log stderr warn;
worker_processes auto;
daemon off;
events {{
  worker_connections 1024;
}}
http {{
  types {{
    application/json json;
    application/zstd zst;
  }}
  default_type application/octet-stream;
  access_log off;
  server_tokens off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 30s;
  max_ranges 1;
  client_body_temp_path /run/kos-mirror/body;
  proxy_temp_path /run/kos-mirror/proxy;
  fastcgi_temp_path /run/kos-mirror/fastcgi;
  uwsgi_temp_path /run/kos-mirror/uwsgi;
  scgi_temp_path /run/kos-mirror/scgi;
  client_max_body_size 1k;
  server {{
{listen}    server_name {name};
{ssl}    root {root};
    autoindex off;
    disable_symlinks on;
    if ($request_method !~ ^(GET|HEAD)$) {{
      return 405;
    }}
    # Named by version or hash: never another content.
    location ~ ^/(releases|patches)/ {{
      add_header Cache-Control "public, max-age=31536000, immutable";
    }}
    location ~ ^/metadata/[0-9]+\\.[a-z-]+\\.json$ {{
      add_header Cache-Control "public, max-age=31536000, immutable";
    }}
    location /metadata/ {{
      add_header Cache-Control "no-cache";
    }}
    location / {{
      return 404;
    }}
  }}
}}
"""

_UNIT = """\
# Written by role kos.fleet.mirror; what is changed here is lost.
[Unit]
Description=kOS release mirror
After=network.target

[Service]
User=www-data
Group=www-data
{credentials}# Whoever starts it hears at once what is wrong with it.
ExecStartPre=/usr/sbin/nginx -t -q -e stderr -c /etc/kos-mirror/nginx.conf
ExecStart=/usr/sbin/nginx -e stderr -c /etc/kos-mirror/nginx.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
RuntimeDirectory=kos-mirror
AmbientCapabilities={capability}
CapabilityBoundingSet={capability}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""
