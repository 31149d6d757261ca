//! The agent as a service of systemd, and the script that installs it on a machine that runs already.
//!
//! In: a node's name, a token. Out: text. Pure.
//! Never: a token on a command line, where every user of the machine could read it.

use super::wish::{WishError, check_token, valid_name};

/// Modules that pods need and that no kernel loads by itself.
pub const MODULES: &str = "overlay\nbr_netfilter\nveth\nbridge\nnf_tables\nnft_nat\nnft_masq\nnft_chain_nat\nnf_conntrack\n";

/// systemd-tmpfiles: what the agent waits for stands above the console's login.
pub const CONSOLE: &str = "d /run/issue.d 0755 root root -\nL+ /run/issue.d/limpet.issue - - - - /run/limpet/waiting\n";

/// `/etc/systemd/system/limpet-agent.service`
pub fn agent_unit(node_name: &str) -> String {
    format!(
        "[Unit]\nDescription=Limpet: this machine as a Kubernetes node\n\
         After=network.target\nStartLimitIntervalSec=0\n\n\
         [Service]\n\
         # The token for the first start; systemd reads it as root, nobody else can.\n\
         EnvironmentFile=-/etc/limpet/agent.env\n\
         Environment=LIMPET_JOIN_PLACE=/etc/limpet/agent.env\n\
         ExecStartPre=-/usr/sbin/rfkill unblock wifi\n\
         ExecStart=/usr/local/bin/limpet-agent --node-name {node_name} --config /etc/limpet/agent.json\n\
         Restart=always\nRestartSec=15\n\
         # Containers carry on while the agent is started anew.\n\
         KillMode=process\nDelegate=yes\nOOMScoreAdjust=-900\nTasksMax=infinity\nLimitNOFILE=65536\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// Run as root on the machine, with the binary at /usr/local/bin/limpet-agent.new. Says what is missing before it changes
/// anything; running it again changes nothing that is right.
pub fn install_script(node_name: &str, token: Option<&str>) -> Result<String, WishError> {
    if !valid_name(node_name) {
        return Err(WishError::Name(node_name.into()));
    }
    let keep_token = match token {
        None => String::new(),
        Some(token) => {
            check_token(token)?;
            format!(
                "if [ ! -e /var/lib/limpet/identity/identity.json ]; then\n    (umask 077; cat > /etc/limpet/agent.env <<'END'\n\
                 LIMPET_JOIN={token}\nEND\n    )\nfi\n"
            )
        }
    };
    Ok(format!(
        r#"#!/bin/sh
# Makes this machine the Limpet node {node_name}. Undo: systemctl disable --now limpet-agent, then remove
# /usr/local/bin/limpet-agent, /etc/limpet, /etc/systemd/system/limpet-agent.service, /etc/modules-load.d/limpet.conf,
# /etc/tmpfiles.d/limpet.conf and /var/lib/limpet.
set -eu
say() {{ echo "limpet: $*" >&2; }}
[ "$(id -u)" = 0 ] || {{ say "needs root"; exit 1; }}
[ -d /run/systemd/system ] || {{ say "this machine does not run systemd; start limpet-agent by other means"; exit 1; }}
new=/usr/local/bin/limpet-agent.new
[ -s "$new" ] || {{ say "$new is missing: copy the agent for $(uname -m) there first"; exit 1; }}
chmod 0755 "$new"
"$new" --version >/dev/null 2>&1 || {{ say "$new does not run on this machine ($(uname -m)): wrong architecture?"; exit 1; }}
mkdir -p /etc/limpet /etc/modules-load.d /etc/tmpfiles.d
chmod 0700 /etc/limpet
{keep_token}[ -e /etc/limpet/agent.json ] || echo '{{}}' > /etc/limpet/agent.json
cat > /etc/modules-load.d/limpet.conf <<'END'
{MODULES}END
cat > /etc/tmpfiles.d/limpet.conf <<'END'
{CONSOLE}END
systemd-tmpfiles --create limpet.conf 2>/dev/null || :
cat > /etc/systemd/system/limpet-agent.service <<'END'
{unit}END
while read -r module; do modprobe -q "$module" 2>/dev/null || :; done < /etc/modules-load.d/limpet.conf
mv "$new" /usr/local/bin/limpet-agent
systemctl daemon-reload
systemctl enable limpet-agent
systemctl restart limpet-agent
/usr/local/bin/limpet-agent doctor || say "the agent runs, but see what doctor says above"
"#,
        unit = agent_unit(node_name),
    ))
}
