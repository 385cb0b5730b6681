//! The lint: for each of its rules a case that it finds and a case like it that is right.
//!
//! In: policies as YAML. Out: passed or failed.

use crate::shop::{DNS, SHOP, check, check_in, found};

/// One policy of namespace shop for the pods with an `app` label.
fn of(app: &str, rest: &str) -> String {
    format!("shop/p: {{podSelector: {{matchLabels: {{app: {app}}}}}, {rest}}}")
}

/// One line of YAML: a text may be wrapped for the reader.
fn joined(yaml: &str) -> String {
    yaml.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn policies_that_are_right_are_not_reported() {
    check("", &[]);
    let rest = joined(&format!(
        "policyTypes: [Ingress, Egress],
        ingress: [{{from: [{{podSelector: {{matchLabels: {{app: cart}}}}}}],
            ports: [{{port: http}}]}}],
        egress: [{DNS}, {{to: [{{podSelector: {{matchLabels: {{app: cart}}}}}}],
            ports: [{{port: 7070}}]}}, {{to: [{{ipBlock: {{cidr: 0.0.0.0/0,
            except: [10.0.0.0/8]}}}}], ports: [{{port: 443}}]}}]"
    ));
    check(&of("web", &rest), &[]);
    // As in Online Boutique: deny all, then open what each pod needs, egress left open.
    let boutique = "shop/deny-all: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}
shop/cart: {podSelector: {matchLabels: {app: cart}}, policyTypes: [Ingress, Egress], \
        ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 7070}]}]}
shop/web: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}
other/deny-all: {podSelector: {}, policyTypes: [Ingress]}";
    check(boutique, &[]);
}

#[test]
fn a_finding_has_its_place_and_a_way_out() {
    let findings = found(SHOP, &of("web", "policyTypes: [Ingress], egress: [{}]"));
    let expected = serde_json::json!([{
        "object": "NetworkPolicy shop/p",
        "origin": "enforced",
        "field": "spec.egress",
        "rule": "ignored-rules",
        "severity": "error",
        "problem": "spec.policyTypes does not hold Egress: these rules are ignored",
        "fix": "add Egress to spec.policyTypes, or remove the rules",
    }]);
    assert_eq!(serde_json::to_value(findings).unwrap(), expected);
    check(&of("web", "policyTypes: [Ingress], egress: []"), &[]);
}

#[test]
fn rules_that_fail_closed() {
    let rule = |peer: &str| {
        let rule = format!("{{action: Deny, from: [{peer}]}}");
        format!(
            "cnp:p: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rule}]}}"
        )
    };
    check(
        &rule("{newer: {}}"),
        &["error fails-closed ClusterNetworkPolicy p spec.ingress[0].from[0]: only unknown \
           fields are set (newer): the rule fails closed, as the API asks of programs that are \
           older than a policy"],
    );
    check(&rule("{namespaces: {}}"), &[]);
}

#[test]
fn host_bits_of_a_cidr() {
    let blocks = "ingress: [{from: [{ipBlock: {cidr: 172.16.1.7/16, except: [172.16.9.9/24]}}]}]";
    let problem = "has bits beyond its prefix: the API reads it as";
    check(
        &of("web", blocks),
        &[
            &format!(
                "warning cidr-host-bits NetworkPolicy shop/p spec.ingress[0].from[0].ipBlock.cidr: \
                 172.16.1.7/16 {problem} 172.16.0.0/16"
            ),
            &format!(
                "warning cidr-host-bits NetworkPolicy shop/p \
                 spec.ingress[0].from[0].ipBlock.except[0]: 172.16.9.9/24 {problem} 172.16.9.0/24"
            ),
        ],
    );
    let right = "ingress: [{from: [{ipBlock: {cidr: 172.16.0.0/16, except: [172.16.9.0/24]}}]}]";
    check(&of("web", right), &[]);
    let networks = |cidr: &str| {
        let rule = format!("{{action: Deny, to: [{{networks: [{cidr:?}]}}]}}");
        format!(
            "cnp:p: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{rule}]}}"
        )
    };
    check(
        &networks("172.16.1.7/16"),
        &[&format!(
            "warning cidr-host-bits ClusterNetworkPolicy p spec.egress[0].to[0].networks[0]: \
             172.16.1.7/16 {problem} 172.16.0.0/16"
        )],
    );
    check(&networks("172.16.0.0/16"), &[]);
}

#[test]
fn selectors_that_contradict_themselves() {
    let subject = |values: &str| {
        let expression = format!("{{key: app, operator: In, values: [{values}]}}");
        let selector = format!("{{matchLabels: {{app: web}}, matchExpressions: [{expression}]}}");
        format!("shop/p: {{podSelector: {selector}}}")
    };
    check(
        &subject("cart"),
        &["error selector-contradiction NetworkPolicy shop/p spec.podSelector: app=cart,app=web: \
           no object can satisfy all that is asked of the label app"],
    );
    check(&subject("cart, web"), &[]);
}

#[test]
fn subjects_that_are_not_there() {
    check(
        &of("wbe", "ingress: [{}]"),
        &["warning selects-no-pods NetworkPolicy shop/p spec.podSelector: selects nothing that \
           is there now: pods with app=wbe of namespace shop"],
    );
    check(&of("web", "ingress: [{}]"), &[]);
    check(
        "nope/p: {podSelector: {}}",
        &["warning namespace-missing NetworkPolicy nope/p metadata.namespace: there is no \
           namespace nope"],
    );
    // A namespace may be guarded before anybody is in it, and without a cluster nobody knows.
    check_in(
        "ns shop\n ns empty\n pod shop/web 10.0.1.1 app=web",
        "empty/p: {podSelector: {}}",
        &[],
    );
    check_in("", &of("wbe", "ingress: [{}]"), &[]);
    let cluster_wide = |key: &str| {
        let subject = format!("{{namespaces: {{matchLabels: {{{key}: red}}}}}}");
        let rule = "{action: Deny, from: [{namespaces: {}}]}";
        format!("cnp:p: {{tier: Admin, priority: 1, subject: {subject}, ingress: [{rule}]}}")
    };
    check(
        &cluster_wide("taem"),
        &["warning selects-no-pods ClusterNetworkPolicy p spec.subject: selects nothing that is \
           there now: all pods of namespaces with taem=red"],
    );
    check(&cluster_wide("team"), &[]);
}

#[test]
fn subjects_on_the_host_network() {
    let problem = "selects pods on the host network, where policies have no effect: \
                   kube-system/proxy";
    let line = |severity: &str| {
        let place = "NetworkPolicy kube-system/p spec.podSelector";
        format!("{severity} host-network-subject {place}: {problem}")
    };
    let only = "kube-system/p: {podSelector: {matchLabels: {app: proxy}}, ingress: [{}]}";
    check(only, &[&line("error")]);
    check("kube-system/p: {podSelector: {}, ingress: [{}]}", &[&line("warning")]);
    check("kube-system/p: {podSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{}]}", &[]);
    // Of a policy for the whole cluster everybody knows.
    let rule = "{action: Allow, from: [{namespaces: {}}]}";
    check(&format!("banp:default: {{subject: {{namespaces: {{}}}}, ingress: [{rule}]}}"), &[]);
}

#[test]
fn peers_that_are_not_there() {
    let from = |peers: &str| of("web", &format!("ingress: [{{from: [{peers}]}}]"));
    let line = |rule: &str, peer: usize, problem: &str| {
        format!("warning {rule} NetworkPolicy shop/p spec.ingress[0].from[{peer}]: {problem}")
    };
    check(
        &from("{namespaceSelector: {matchLabels: {team: blue}}}"),
        &[&line(
            "peer-matches-no-namespace",
            0,
            "matches no namespace that is there now: team=blue",
        )],
    );
    check(&from("{namespaceSelector: {matchLabels: {team: red}}}"), &[]);
    let nothing = "matches nothing that is there now: pods with app=batch of namespace shop";
    let two = from(
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}, \
                    {podSelector: {matchLabels: {app: batch}}}",
    );
    check(&two, &[&line("peer-matches-no-pods", 1, nothing)]);
    assert_eq!(
        found(SHOP, &two)[0].fix,
        "items of the list are alternatives: for these pods of the namespaces of item 0 put both \
         selectors into one item"
    );
    check(
        &from(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}, \
               podSelector: {matchLabels: {app: batch}}}",
        ),
        &[],
    );
    let host = "{namespaceSelector: {}, podSelector: {matchLabels: {app: proxy}}}";
    let problem = "matches pods on the host network only, which have their nodes' addresses: \
                   kube-system/proxy";
    check(&from(host), &[&line("peer-is-host-network", 0, problem)]);
    check(&from("{namespaceSelector: {}}"), &[]);
}

#[test]
fn node_peers_that_are_not_there() {
    let to = |zone: &str| {
        let rule = format!("{{action: Deny, to: [{{nodes: {{matchLabels: {{zone: {zone}}}}}}}]}}");
        format!(
            "cnp:p: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{rule}]}}"
        )
    };
    check(
        &to("b"),
        &["warning peer-matches-no-nodes ClusterNetworkPolicy p spec.egress[0].to[0]: matches no \
           node that is there now: zone=b"],
    );
    check(&to("a"), &[]);
}

#[test]
fn named_ports_that_nobody_has() {
    let ports = |ports: &str| of("web", &format!("ingress: [{{ports: [{{port: 80}}, {ports}]}}]"));
    let line = |field: &str, problem: &str| {
        format!("error named-port-missing NetworkPolicy shop/p {field}: {problem}")
    };
    let field = "spec.ingress[0].ports[1]";
    let nobody = "none of the pods that are asked has a port \"htpt\" for TCP";
    check(&ports("{port: htpt}"), &[&line(field, nobody)]);
    let other = "the pods that are asked have \"http\" for another protocol only";
    check(&ports("{port: http, protocol: UDP}"), &[&line(field, other)]);
    check(&ports("{port: http}"), &[]);
    let to = |peer: &str, port: &str| {
        let rule = format!("{{to: [{peer}], ports: [{{port: {port}}}]}}");
        of("web", &joined(&format!("egress: [{DNS}, {rule}]")))
    };
    let cart = "{podSelector: {matchLabels: {app: cart}}}";
    check(&to(cart, "grpc"), &[]);
    let field = "spec.egress[1].ports[0]";
    let nobody = "none of the pods that are asked has a port \"http\" for TCP";
    check(&to(cart, "http"), &[&line(field, nobody)]);
    let block = "{ipBlock: {cidr: 0.0.0.0/0}}";
    let address = "\"http\" is a pod's port name, and addresses have no named ports";
    check(&to(block, "http"), &[&line(field, address)]);
    check(&to(&format!("{block}, {cart}"), "grpc"), &[]);
}

#[test]
fn rules_in_the_shadow_of_others() {
    let from = |app: &str| format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}");
    let rule = |from: &str, ports: &str| format!("{{from: [{from}], ports: [{ports}]}}");
    let line = |place: &str, other: &str| {
        format!("warning shadowed-rule NetworkPolicy {place}: allows nothing that {other} does not")
    };
    let narrow = rule(&from("cart"), "{port: 81}");
    let wide = rule("{podSelector: {}}", "{port: 80, endPort: 90}");
    check(
        &of("web", &format!("ingress: [{narrow}, {wide}]")),
        &[&line("shop/p spec.ingress[0]", "spec.ingress[1]")],
    );
    // Of two that say the same the later one is told, here and across policies.
    check(
        &of("web", &format!("ingress: [{wide}, {wide}]")),
        &[&line("shop/p spec.ingress[1]", "spec.ingress[0]")],
    );
    let of_all = format!("shop/all: {{podSelector: {{}}, ingress: [{wide}]}}\n");
    check(
        &(of_all.clone() + &of("web", &format!("ingress: [{narrow}]"))),
        &[&line("shop/p spec.ingress[0]", "spec.ingress[0] of NetworkPolicy shop/all")],
    );
    // Another port, more peers, a narrower subject, another direction or namespace: not the same.
    for other in [rule(&from("cart"), "{port: 91}"), rule("{namespaceSelector: {}}", "{port: 81}")]
    {
        check(&of("web", &format!("ingress: [{other}, {wide}]")), &[]);
    }
    check(&(of_all.clone() + "shop/p: {podSelector: {}, egress: [{}]}"), &[]);
    check(&(of_all + &format!("other/p: {{podSelector: {{}}, ingress: [{wide}]}}")), &[]);
    let of_web = of("web", &format!("ingress: [{wide}]"));
    check(&(of_web + &format!("\nshop/q: {{podSelector: {{}}, ingress: [{narrow}]}}")), &[]);
}

#[test]
fn blocks_in_the_shadow_of_others() {
    let blocks = |first: &str, second: &str| {
        let rule = |block: &str| format!("{{from: [{{ipBlock: {block}}}]}}");
        of("web", &format!("ingress: [{}, {}]", rule(first), rule(second)))
    };
    let wide = "{cidr: 172.16.0.0/12, except: [172.17.0.0/16]}";
    let line = "warning shadowed-rule NetworkPolicy shop/p spec.ingress[1]: allows nothing that \
                spec.ingress[0] does not";
    check(&blocks(wide, "{cidr: 172.18.0.0/16}"), &[line]);
    check(&blocks(wide, "{cidr: 172.17.0.0/24}"), &[]);
    check(&blocks(wide, "{cidr: 172.16.0.0/15, except: [172.17.0.0/16]}"), &[line]);
    check(&blocks(wide, "{cidr: 172.16.0.0/15, except: [172.17.0.0/17]}"), &[]);
    // Whether a block of everything means pods depends on who enforces it.
    let pods = "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}, {from: [{podSelector: {}}]}]";
    check(&of("web", pods), &[]);
}

fn cluster_policy(name: &str, priority: u16, action: &str, port: u16) -> String {
    let ports = format!("[{{tcp: {{destinationPort: {{number: {port}}}}}}}]");
    let rule = format!("{{action: {action}, from: [{{namespaces: {{}}}}], protocols: {ports}}}");
    let subject = "{namespaces: {matchLabels: {team: red}}}";
    format!(
        "cnp:{name}: {{tier: Admin, priority: {priority}, subject: {subject}, ingress: [{rule}]}}\n"
    )
}

#[test]
fn rules_that_an_earlier_one_decides() {
    let before = cluster_policy("a", 1, "Deny", 80);
    check(
        &(before.clone() + &cluster_policy("b", 2, "Accept", 80)),
        &["warning unreachable-rule ClusterNetworkPolicy b spec.ingress[0]: is never asked: \
           spec.ingress[0] of ClusterNetworkPolicy a decides first"],
    );
    check(&(before.clone() + &cluster_policy("b", 2, "Accept", 81)), &[]);
    check(&(cluster_policy("b", 2, "Deny", 80) + &cluster_policy("a", 1, "Accept", 81)), &[]);
    let baseline = cluster_policy("b", 2, "Deny", 80).replace("Admin", "Baseline");
    check(&(before + &baseline), &[]);
    let rules =
        "{action: Deny, from: [{namespaces: {}}]}, {action: Allow, from: [{namespaces: {}}]}";
    check(
        &format!("anp:p: {{priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rules}]}}"),
        &["warning unreachable-rule AdminNetworkPolicy p spec.ingress[1]: is never asked: \
           spec.ingress[0] decides first"],
    );
}

#[test]
fn priorities_that_tie() {
    let a = cluster_policy("a", 7, "Deny", 80);
    check(
        &(a.clone() + &cluster_policy("b", 7, "Accept", 80)),
        &["error priority-tie ClusterNetworkPolicy b spec.priority: spec.ingress[0] contradicts \
           spec.ingress[0] of ClusterNetworkPolicy a, which has the same tier and priority 7 and \
           pods in common: which of them is applied is left open"],
    );
    check(&(a.clone() + &cluster_policy("b", 7, "Deny", 80)), &[]);
    check(&(a.clone() + &cluster_policy("b", 7, "Accept", 81)), &[]);
    let elsewhere = "subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: other}}}";
    let b = cluster_policy("b", 7, "Accept", 80);
    let subject = "subject: {namespaces: {matchLabels: {team: red}}}";
    check(&(a + &b.replace(subject, elsewhere)), &[]);
}

#[test]
fn egress_to_the_port_of_a_service() {
    let to = |peer: &str, port: &str, more: &str| {
        let rule = format!("{{to: [{peer}], ports: [{{port: {port}}}]}}");
        of("cart", &joined(&format!("egress: [{DNS}, {rule}{more}]")))
    };
    let web = "{podSelector: {matchLabels: {app: web}}}";
    let line = "error service-port NetworkPolicy shop/p spec.egress[1].ports[0]: TCP 80 is the \
                port of Service shop/web: its pods, such as shop/web, are asked at TCP 8080, which \
                no rule lets through";
    check(&to(web, "80", ""), &[line]);
    check(&to("{podSelector: {}}", "80", ""), &[line]);
    check(&to(web, "8080", ""), &[]);
    check(&to(web, "http", ""), &[]);
    check(&to(web, "81", ""), &[]);
    // Both ports: somebody was careful. And outside of the cluster port 80 is what it is.
    check(&to(web, "80", &format!(", {{to: [{web}], ports: [{{port: 8080}}]}}")), &[]);
    check(&to("{ipBlock: {cidr: 198.51.100.0/24}}", "80", ""), &[]);
    // One of the peers is asked at 80 indeed.
    let both = SHOP.to_owned() + "svc shop/plain 10.96.0.9 TCP 80>80 app=cart";
    check_in(&both, &to("{podSelector: {}}", "80", ""), &[]);
}

#[test]
fn egress_without_dns() {
    let line = |rule: &str, problem: &str| {
        format!("warning {rule} NetworkPolicy shop/p spec.egress: {problem}")
    };
    let both = "isolates pods for egress that nothing lets ask DNS by UDP:";
    let all = line("egress-without-dns", &format!("{both} shop/cart and 1 more"));
    check("shop/p: {podSelector: {}, policyTypes: [Egress]}", &[&all]);
    // One of the pods may, by another policy.
    let with_dns = joined(&format!(
        "shop/q: {{podSelector: {{matchLabels: {{app: web}}}}, \
         policyTypes: [Egress], egress: [{DNS}]}}"
    ));
    let cart = line("egress-without-dns", &format!("{both} shop/cart"));
    check(&format!("shop/p: {{podSelector: {{}}, policyTypes: [Egress]}}\n{with_dns}"), &[&cart]);
    let rule = |rule: &str| {
        format!("shop/p: {{podSelector: {{}}, policyTypes: [Egress], egress: [{rule}]}}")
    };
    check(&rule(&joined(DNS)), &[]);
    check(&rule("{}"), &[]);
    check(&rule("{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}"), &[]);
    check(
        &rule("{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}"),
        &[&line(
            "dns-without-tcp",
            "pods may ask DNS by UDP, but not by TCP when an answer is long: shop/cart and 1 more",
        )],
    );
    // Pods that are not isolated for egress, and the DNS itself.
    check("shop/p: {podSelector: {}, policyTypes: [Ingress]}", &[]);
    let dns =
        "kube-system/p: {podSelector: {matchLabels: {k8s-app: kube-dns}}, policyTypes: [Egress]}";
    check(dns, &[]);
    // What the DNS may do for itself says nothing of those beside it.
    let beside = SHOP.to_owned() + "pod kube-system/app 10.0.1.9 z=1";
    let line = "warning egress-without-dns NetworkPolicy kube-system/p spec.egress: isolates pods \
                for egress that nothing lets ask DNS by UDP: kube-system/app";
    check_in(
        &beside,
        "kube-system/p: {podSelector: {matchExpressions: [{key: app, \
                       operator: DoesNotExist}]}, policyTypes: [Egress]}",
        &[line],
    );
}

#[test]
fn egress_without_dns_where_none_is_known_or_others_deny_it() {
    let cluster = "ns shop\n pod shop/web 10.0.1.1 app=web";
    let line = "warning egress-without-dns NetworkPolicy shop/p spec.egress: isolates pods for \
                egress that nothing lets ask DNS by UDP: shop/web";
    check_in(cluster, "shop/p: {podSelector: {}, policyTypes: [Egress]}", &[line]);
    let rule = "{to: [{ipBlock: {cidr: 10.9.0.0/16}}], ports: [{port: 50, endPort: 60, \
                protocol: UDP}, {port: 53}]}";
    check_in(
        cluster,
        &format!("shop/p: {{podSelector: {{}}, policyTypes: [Egress], egress: [{rule}]}}"),
        &[],
    );
    let denied = "cnp:a: {tier: Admin, priority: 1, \
                  subject: {namespaces: {matchLabels: {team: red}}}, \
                  egress: [{action: Deny, to: [{namespaces: {}}, {networks: [0.0.0.0/0]}]}]}";
    check(
        denied,
        &["warning egress-without-dns ClusterNetworkPolicy a spec.egress: isolates pods for \
           egress that nothing lets ask DNS by UDP: shop/cart and 1 more"],
    );
    check(&denied.replace("Deny", "Pass"), &[]);
}

#[test]
fn ambient_meshes_without_their_tunnel() {
    let mesh = SHOP.replace("team=red", "team=red istio.io/dataplane-mode=ambient");
    let line = "error ambient-without-hbone NetworkPolicy shop/p spec.ingress[0]: lets traffic of \
                the ambient mesh in at its real port only, but it comes to TCP 15008: shop/web";
    let from = |peers: &str, ports: &str| {
        of("web", &format!("ingress: [{{from: [{peers}], ports: [{ports}]}}]"))
    };
    let cart = "{podSelector: {matchLabels: {app: cart}}}";
    check_in(&mesh, &from(cart, "{port: 8080}"), &[line]);
    check_in(&mesh, &from(cart, "{port: http}"), &[line]);
    check_in(&mesh, &of("web", "ingress: [{ports: [{port: 8080}]}]"), &[line]);
    check_in(&mesh, &from(cart, "{port: 8080}, {port: 15008}"), &[]);
    check_in(&mesh, &from(cart, ""), &[]);
    check_in(&mesh, &from(cart, "{port: 8080, protocol: UDP}"), &[]);
    // The tunnel for all is a policy of its own.
    let tunnel = "\nshop/tunnel: {podSelector: {}, ingress: [{ports: [{port: 15008}]}]}";
    check_in(&mesh, &(from(cart, "{port: 8080}") + tunnel), &[]);
    let for_others = "\nshop/tunnel: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: \
                      {app: web}}}], ports: [{port: 15008}]}]}";
    check_in(&mesh, &(from(cart, "{port: 8080}") + for_others), &[line]);
    // Who is not in the mesh comes in by the real port, and where nothing is open nobody comes.
    check_in(&mesh, &from("{ipBlock: {cidr: 172.16.0.0/12}}", "{port: 8080}"), &[]);
    let outside = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}";
    check_in(&mesh, &from(outside, "{port: 8080}"), &[]);
    check_in(&mesh, &of("web", "ingress: []"), &[]);
    check(&from(cart, "{port: 8080}"), &[]);
    // The pod's own label wins over its namespace's.
    let out = mesh.replace("app=web http", "app=web istio.io/dataplane-mode=none http");
    check_in(&out, &from(cart, "{port: 8080}"), &[]);
    let own = SHOP.replace(" http:", " istio.io/dataplane-mode=ambient http:");
    check_in(&own, &of("web", "ingress: [{ports: [{port: 8080}]}]"), &[line]);
}

#[test]
fn blocks_that_lead_into_the_cluster() {
    let block =
        |cidr: &str| of("web", &format!("ingress: [{{from: [{{ipBlock: {{cidr: {cidr:?}}}}}]}}]"));
    let line = |rule: &str, problem: &str| {
        format!("warning {rule} NetworkPolicy shop/p spec.ingress[0].from[0]: {problem}")
    };
    let pods = |cidr: &str, pods: &str| {
        let problem = format!("{cidr} holds pods of this cluster and nothing else: {pods}");
        line("block-holds-pods", &problem)
    };
    check(&block("10.0.1.2/32"), &[&pods("10.0.1.2/32", "shop/cart")]);
    check(&block("10.0.1.0/25"), &[&pods("10.0.1.0/25", "kube-system/dns and 3 more")]);
    check(&block("10.0.0.0/16"), &[&pods("10.0.0.0/16", "kube-system/dns and 3 more")]);
    // More than pods, no pods, or an address nobody has.
    for cidr in ["10.0.0.0/8", "0.0.0.0/0", "192.168.0.0/16", "10.0.1.9/32", "192.168.0.1/32"] {
        check(&block(cidr), &[]);
    }
    let problem = "10.96.0.2 is the address of Service shop/web: where it is replaced by a pod's \
                   before policies are asked, the block never matches";
    check(&block("10.96.0.2/32"), &[&line("block-holds-service", problem)]);
    check(&block("10.96.0.0/24"), &[]);
    // Nodes and pods have addresses of one network.
    let flat = SHOP.replace("192.168.0.1 10.0.1.0/24", "10.0.9.1 10.0.1.0/24");
    check_in(&flat, &block("10.0.0.0/16"), &[]);
}
