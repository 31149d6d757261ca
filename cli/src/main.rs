//! `limpet`: the operator's one binary.
//!
//! In: a command line. Out: a running hub, join tokens, completions; results on stdout, reasons on stderr.
//! Exit codes: 0 done, 1 it did not work, 2 the command line is wrong.
//! Never: decides anything that the hub should.

mod agents;
mod commands;
mod duration;
mod logging;
mod table;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What a hub frees after a burst goes back to the system (decision 0048).
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes for fleets of small boards.
///
/// One hub speaks the Kubernetes API; every board runs one small agent and goes on without the hub for as long as it
/// takes.
#[derive(Parser)]
#[command(
    name = "limpet",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "First steps:\n  \
        limpet hub --data-dir /var/lib/limpet               start a hub\n  \
        limpet token create --data-dir /var/lib/limpet      make a token for a board\n  \
        limpet-agent --join TOKEN                           on the board\n  \
        kubectl --kubeconfig /var/lib/limpet/admin.kubeconfig get nodes"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Hub(commands::hub::Args),
    Broker(commands::broker::Args),
    Token(commands::token::Args),
    Why(commands::why::Args),
    Flash(Box<commands::flash::Args>),
    Image(commands::image::Args),
    Node(commands::node::Args),
    Update(commands::update::Args),
    Messages(commands::messages::Args),
    Completions(commands::completions::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Hub(args) => commands::hub::run(args),
        Command::Broker(args) => commands::broker::run(args),
        Command::Token(args) => commands::token::run(args),
        Command::Why(args) => commands::why::run(&args),
        Command::Flash(args) => commands::flash::run(*args),
        Command::Image(args) => commands::image::run(args),
        Command::Node(args) => commands::node::run(args),
        Command::Update(args) => commands::update::run(args),
        Command::Messages(args) => commands::messages::run(args),
        Command::Completions(args) => commands::completions::run::<Cli>(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("limpet: {sentence}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_fixed_flags_are_there() {
        let lines = [
            "limpet hub --data-dir d",
            "limpet hub --data-dir d --api-listen 1.2.3.4:1 --mqtt-listen [::]:2 --registry-listen 0.0.0.0:3 \
             --advertise-host a --advertise-host b --cluster-name c",
            "limpet hub --data-dir d --audit-policy-file p --audit-log-path - --audit-log-maxsize 1 --audit-log-maxbackup 2 \
             --audit-log-maxage 3 --audit-webhook-config-file k --audit-webhook-batch-buffer-size 1 \
             --audit-webhook-batch-max-size 1 --audit-webhook-batch-max-wait 1s --audit-webhook-initial-backoff 1s \
             --max-requests-inflight 1 --max-mutating-requests-inflight 0",
            "limpet hub --data-dir d --token-auth-file t --oidc-issuer-url https://x --oidc-client-id c --oidc-username-claim email \
             --oidc-username-prefix - --oidc-groups-claim g --oidc-groups-prefix p: --oidc-required-claim a=b \
             --oidc-required-claim c=d --oidc-signing-algs RS256,ES256 --oidc-ca-file ca --anonymous-auth=false \
             --authentication-token-webhook-config-file k --authentication-token-webhook-cache-ttl 0s",
            "limpet hub --data-dir d --authentication-config a --requestheader-client-ca-file c --requestheader-allowed-names a,b \
             --requestheader-username-headers U --requestheader-uid-headers I --requestheader-group-headers G \
             --requestheader-extra-headers-prefix E-",
            "limpet hub --data-dir d --authorization-mode=Node,RBAC,ABAC,Webhook --authorization-policy-file p \
             --authorization-webhook-config-file k --authorization-webhook-cache-authorized-ttl 5m \
             --authorization-webhook-cache-unauthorized-ttl 0s",
            "limpet hub --data-dir d --authorization-config a",
            "limpet hub --data-dir d --broker mqtts://b:8883,c --broker-advertise b:1 --broker-advertise wss://b/mqtt --broker-cafile f \
             --broker-certfile c --broker-keyfile k --broker-username u --broker-password-file p --broker-node-username n \
             --broker-node-password-file q --mqtt-listen 0.0.0.0:1883",
            "limpet broker acl",
            "limpet broker acl --format emqx --hub-username h --node-username n",
            "limpet broker setup --host broker.example --host 192.0.2.7 --out o --data-dir d",
            "limpet token create --data-dir d",
            "limpet token create --ttl 24h --uses 3 --node pi-1 --data-dir d",
            "limpet token list --data-dir d",
            "limpet token revoke abc --data-dir d",
            "limpet why pod/web-1 -n shop --data-dir d",
            "limpet why node/pi-1 --kubeconfig k",
            "limpet why fleetrollout web --data-dir d -o json",
            "limpet token create --pool shop --wait --approve pi-* --approve nano --data-dir d",
            "limpet node list --data-dir d",
            "limpet node approve pi-1 --data-dir d",
            "limpet node reject pi-1 --data-dir d",
            "limpet node remove pi-1 --data-dir d",
            "limpet completions zsh",
            "limpet flash --list",
            "limpet flash raspberry-pi-4 --list",
            "limpet flash --drives",
            "limpet flash raspberry-pi-4 --image i.img.xz --device /dev/sdb --device /dev/sdc --name n --data-dir d --yes \
             --wifi home --wifi-country DE --wifi-hidden --wifi-wpa3 --ssh-key k --time-zone Europe/Berlin --ntp a --ntp b",
            "limpet flash qemu-arm64 --image i --out - ",
            "limpet node add pi@192.0.2.1 -p 2222 --name n --data-dir d",
            "limpet node script --name n",
            "limpet image build --board qemu-arm64 --out i",
            "limpet image update --board qemu-arm64 --out i --update-key k --os-version 2.0",
            "limpet image key --out k",
            "limpet image sign i.img.xz --key k",
            "limpet flash qemu-arm64 --image i.img.xz --signature i.img.xz.sig --key k.pub --out f --name n --label d",
            "limpet update publish a b --version 1.2.3 --allow-downgrade --update-key k --data-dir d",
            "limpet update list --data-dir d",
            "limpet update key --data-dir d",
            "limpet hub --data-dir d --broker none",
            "limpet messages show -n shop --topic up/# --node n --tail 5 -f -o json --data-dir d",
            "limpet messages send down/sign closed -n shop --node n --retain --kubeconfig k",
        ];
        for line in lines {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
        let wrong = [
            "limpet",
            "limpet why",
            "limpet hub --data-dir d --api-listen nonsense",
            "limpet hub --data-dir d --broker-cafile f",
            "limpet hub --data-dir d --broker mqtts://b --broker-certfile c",
            "limpet broker setup --out o --data-dir d",
            "limpet token create --ttl x --data-dir d",
        ];
        for line in wrong {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
        // Its subcommands have a directory of their own; alone it says what it needs.
        let Ok(Cli { command: Command::Hub(args) }) = Cli::try_parse_from(["limpet", "hub"]) else { panic!() };
        assert!(commands::hub::run(args).is_err_and(|why| why.to_string().contains("needs --data-dir DIR")));
    }
}
