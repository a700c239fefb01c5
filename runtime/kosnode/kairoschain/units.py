"""What systemd, nginx and logrotate are told of a KairosChain node. Pure: text from a spec."""

from __future__ import annotations

from pathlib import Path

from . import layout
from .application import ACCOUNT, PROGRAM
from .spec import Proxy, Spec

SERVICE = "kairos-chain.service"
PROXY = "kairos-proxy.service"
CHECK = "kairos-check.service"
TIMER = "kairos-check.timer"
KOSCTL = "/opt/kos/current/bin/kosctl"
PROXY_ETC = "/etc/kairos/proxy"

_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers={private_users}
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies={families}
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""

_SERVICE = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
[Unit]
Description=KairosChain
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
User={account}
Group={account}
UMask=0077
Environment=LANG=C.UTF-8 KAIROS_DATA_DIR={data} GEM_HOME={code}/current
# Some of its tools work in the working directory, whatever the data directory is.
WorkingDirectory={data}
RuntimeDirectory=kairos-chain
RuntimeDirectoryMode=0755
# A ledger that is damaged or absent is not written over, and no new one is begun in its place.
ExecStartPre={kosctl} kairoschain guard --data {data} --code {code} --json
ExecStart={code}/current/bin/{program} --data-dir {data} --http --host {host} --port {port}{tls}
Restart=on-failure
RestartSec=2
TimeoutStartSec=300
ReadWritePaths={data}
SocketBindDeny=any
SocketBindAllow=tcp:{port}
{hardening}
[Install]
WantedBy=multi-user.target
"""

_CHECK = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
[Unit]
Description=Deep check of KairosChain

[Service]
Type=oneshot
ExecStart={kosctl} kairoschain check --json
TimeoutStartSec=600
# It looks with the rights of root, since the application's files are its own alone, and writes metrics only.
ProtectSystem=strict
ReadWritePaths={writes}
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes
"""

_TIMER = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
[Unit]
Description=Deep check of KairosChain at intervals

[Timer]
OnBootSec=1min
OnUnitActiveSec={interval}s
AccuracySec=1s

[Install]
WantedBy=timers.target
"""

_PROXY = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
[Unit]
Description=TLS in front of KairosChain
After=network.target {service}

[Service]
User=www-data
Group=www-data
LoadCredential=tls.crt:{etc}/tls.crt
LoadCredential=tls.key:{etc}/tls.key
# Whoever starts it hears at once what is wrong with it.
ExecStartPre=/usr/sbin/nginx -t -q -e stderr -c {etc}/nginx.conf
ExecStart=/usr/sbin/nginx -e stderr -c {etc}/nginx.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
RuntimeDirectory=kairos-proxy
{hardening}
[Install]
WantedBy=multi-user.target
"""

_NGINX = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
pid /run/kairos-proxy/nginx.pid;
error_log stderr warn;
worker_processes 1;
daemon off;
events {{
  worker_connections 1024;
}}
http {{
  access_log off;
  server_tokens off;
  keepalive_timeout 30s;
  client_body_timeout 10s;
  client_header_timeout 10s;
  client_body_temp_path /run/kairos-proxy/body;
  proxy_temp_path /run/kairos-proxy/proxy;
  fastcgi_temp_path /run/kairos-proxy/fastcgi;
  uwsgi_temp_path /run/kairos-proxy/uwsgi;
  scgi_temp_path /run/kairos-proxy/scgi;
  client_max_body_size {body};
  limit_req_zone $binary_remote_addr zone=requests:4m rate={rate}r/s;
  limit_req zone=requests burst={burst} nodelay;
  limit_req_status 429;
  limit_conn_zone $binary_remote_addr zone=connections:4m;
  limit_conn connections {connections};
  limit_conn_status 429;
  server {{
{listen}    server_name {name};
    ssl_certificate /run/credentials/{service}/tls.crt;
    ssl_certificate_key /run/credentials/{service}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;
    add_header X-Content-Type-Options nosniff always;
    add_header X-Frame-Options DENY always;
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection "";
      # What a client says of itself is written over.
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""

# The application opens the log anew for each line, so a rename loses none, and it makes the next file itself.
_LOGROTATE = """\
# Written by role kos.fleet.kairoschain; what is changed here is lost.
{log} {{
  su {account} {account}
  size 10M
  rotate 8
  missingok
  notifempty
  nocreate
  compress
  delaycompress
}}
"""


def service(spec: Spec, data: Path, code: Path) -> str:
    """Return the unit of the server.

    Args:
        spec: what the node is to be.
        data: the data directory, as the node itself sees it; so is `code`.
    """
    http = spec.http
    families = "AF_INET AF_INET6 AF_UNIX"
    return _SERVICE.format(
        account=ACCOUNT,
        program=PROGRAM,
        data=data,
        code=code,
        kosctl=KOSCTL,
        host=http["host"],
        port=http["port"],
        tls=" --tls" if http.get("tls", {}).get("enabled") else "",
        hardening=_HARDENING.format(capabilities="", private_users="yes", families=families),
    )


def check(metrics: Path | None) -> str:
    """Return the unit of the deep check.

    Args:
        metrics: its file as the node itself sees it, if there is one.
    """
    return _CHECK.format(kosctl=KOSCTL, writes=metrics.parent if metrics else "/run")


def timer(spec: Spec) -> str:
    """Return the timer of the deep check."""
    return _TIMER.format(interval=spec.check_interval_s)


def proxy_service(proxy: Proxy) -> str:
    """Return the unit of the TLS proxy."""
    capabilities = "CAP_NET_BIND_SERVICE" if proxy.port < 1024 else ""
    hardening = _HARDENING.format(
        # In a user namespace of its own a capability would not count for the port.
        capabilities=capabilities,
        private_users="no" if capabilities else "yes",
        families="AF_INET AF_INET6 AF_UNIX",
    )
    return _PROXY.format(etc=PROXY_ETC, service=SERVICE, hardening=hardening)


def nginx(spec: Spec, proxy: Proxy) -> str:
    """Return the configuration of the TLS proxy."""
    address = f"{proxy.address}:" if proxy.address else ""
    listen = f"    listen {address}{proxy.port} ssl;\n"
    if not proxy.address:
        listen += f"    listen [::]:{proxy.port} ssl;\n"
    http = spec.http
    scheme = "https" if http.get("tls", {}).get("enabled") else "http"
    host = f"[{http['host']}]" if ":" in http["host"] else http["host"]
    return _NGINX.format(
        body=proxy.body_bytes,
        rate=proxy.rate_per_s,
        burst=2 * proxy.rate_per_s,
        connections=proxy.connections,
        listen=listen,
        name=proxy.server_name,
        service=PROXY,
        upstream=f"{scheme}://{host}:{http['port']}",
    )


def logrotate(data: Path) -> str:
    """Return what logrotate is told of the action log."""
    return _LOGROTATE.format(log=data / layout.ACTION_LOG, account=ACCOUNT)
