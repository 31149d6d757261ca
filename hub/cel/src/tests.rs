//! Expressions and what comes of them.

use std::sync::Arc;

use serde_json::json;

use super::*;

fn env() -> Env {
    let spec = Type::object(
        "Spec",
        [
            ("replicas".to_owned(), Type::Int),
            ("name".to_owned(), Type::String),
            ("tags".to_owned(), Type::list(Type::String)),
            ("labels".to_owned(), Type::map(Type::String, Type::String)),
            ("any".to_owned(), Type::Dyn),
        ],
    );
    Env::default()
        .with("self", Decl::of(spec, 1))
        .with("n", Decl::of(Type::list(Type::Int), 2000))
}

fn object() -> Value {
    Value::from_json(
        &json!({"replicas": 3, "name": "héllo", "tags": ["a", "b"], "labels": {"k": "v"}, "any": {"x": [1, 2]}}),
    )
}

fn check(text: &str) -> String {
    let program = match Program::compile(text, &env()) {
        Ok(program) => program,
        Err(why) => return why.lines().next().unwrap_or_default().to_owned(),
    };
    let n = Value::list((0..2000).map(Value::Int).collect());
    match program.run(&[("self", object()), ("n", n)], &mut Meter::new(1_000_000)) {
        Ok(value) => match value.to_json() {
            Some(json) => json.to_string(),
            None => match value {
                Value::Optional(None) => "none".to_owned(),
                other => other.type_name().to_owned(),
            },
        },
        Err(failure) => format!("error: {failure}"),
    }
}

#[test]
fn expressions_and_their_values() {
    let cases = [
        ("1 + 2 * 3", "7"),
        ("-5 % 3", "-2"),
        ("7 / 2", "3"),
        ("7.0 / 2.0", "3.5"),
        ("1u + 2u", "3"),
        ("'a' + \"b\"", "\"ab\""),
        ("[1] + [2]", "[1,2]"),
        ("1 < 2.5 && 2u > 1", "true"),
        ("true || 1/0 == 1", "true"),
        ("1/0 == 1 || true", "true"),
        ("false && 1/0 == 1", "false"),
        ("1/0 == 1 && true", "error: division by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0x1F", "31"),
        ("self.replicas >= 3 ? 'many' : 'few'", "\"many\""),
        ("size(self.name)", "5"),
        ("self.name.size() == 5", "true"),
        ("self.tags[1]", "\"b\""),
        ("self.tags[5]", "error: index out of bounds: 5"),
        ("self.labels['k']", "\"v\""),
        ("self.labels.k", "\"v\""),
        ("self.labels['no']", "error: no such key: no"),
        ("has(self.labels.no)", "false"),
        ("has(self.name)", "true"),
        ("'k' in self.labels && 'a' in self.tags", "true"),
        ("self.any.x[0] == 1", "true"),
        ("self.tags.all(t, t.startsWith('a'))", "false"),
        ("self.tags.exists(t, t == 'b')", "true"),
        ("self.tags.exists_one(t, t == 'b')", "true"),
        ("self.tags.map(t, t + '!')", "[\"a!\",\"b!\"]"),
        ("self.tags.map(t, t != 'a', t + '!')", "[\"b!\"]"),
        ("self.tags.filter(t, t != 'a')", "[\"b\"]"),
        ("self.labels.all(k, k == 'k')", "true"),
        ("self.tags.all(i, v, i < 2 && v != '')", "true"),
        ("[1, 2].transformList(i, v, i + v)", "[1,3]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\":2}"),
        ("['x'].transformMapEntry(i, v, {v: i})", "{\"x\":0}"),
        ("cel.bind(x, 3, x * x)", "9"),
        ("[1, 0].exists(x, 1/x == 1)", "true"),
        ("[0, 1].all(x, 1/x == 2)", "false"),
        ("self.?replicas.orValue(1)", "3"),
        ("self.labels[?'no'].orValue('d')", "\"d\""),
        ("self.labels[?'no'].hasValue()", "false"),
        ("optional.none().orValue(2)", "2"),
        ("optional.of(2).optMap(x, x + 1).value()", "3"),
        ("optional.none()", "none"),
        ("[?optional.of(1), ?optional.none(), 3]", "[1,3]"),
        ("{?'a': optional.of(1), ?'b': optional.none()}", "{\"a\":1}"),
        ("type(1) == int && type('') == string", "true"),
        ("dyn(1) == 1", "true"),
        ("int('5') + int(2.9)", "7"),
        ("string(5) + string(true) + string(1.5)", "\"5true1.5\""),
        ("double('2.5')", "2.5"),
        ("'abc'.matches('^a.c$')", "true"),
        ("'a,b'.split(',').join('-')", "\"a-b\""),
        ("'hello'.substring(1, 3) + 'x'.upperAscii()", "\"elX\""),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l')", "5"),
        ("'a-b'.replace('-', '+')", "\"a+b\""),
        ("'  x '.trim()", "\"x\""),
        (
            "'%s is %d (%.2f)'.format(['a', 3, 1.5])",
            "\"a is 3 (1.50)\"",
        ),
        ("[3, 1, 2].isSorted() || [1, 2].isSorted()", "true"),
        ("[1, 2, 3].sum() + [4, 9].max() - [4, 9].min()", "11"),
        ("['a', 'b'].indexOf('b')", "1"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("'x123y45'.findAll('[0-9]+')", "[\"123\",\"45\"]"),
        ("'x123'.find('[0-9]+')", "\"123\""),
        ("url('https://a.b:80/c?d=1').getHostname()", "\"a.b\""),
        ("url('https://a.b:80/c?d=1').getQuery()", "{\"d\":[\"1\"]}"),
        ("isURL('nope') || isURL('/path')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && ip('::1').isLoopback()",
            "true",
        ),
        ("ip('10.0.0.1').family()", "4"),
        ("isIP('10.0.0.256')", "false"),
        (
            "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('0.5')) == quantity('1')",
            "true",
        ),
        ("isQuantity('12x')", "false"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1', true)",
            "true",
        ),
        (
            "format.dns1123Label().validate('no_good').hasValue()",
            "true",
        ),
        ("format.named('uuid').hasValue()", "true"),
        ("timestamp('2026-01-02T03:04:05Z').getMonth()", "0"),
        (
            "timestamp('2026-01-02T03:04:05Z') + duration('1h') > timestamp('2026-01-02T04:00:00Z')",
            "true",
        ),
        ("timestamp('2026-01-02T03:04:05Z').getHours('+02:00')", "5"),
        ("duration('90m').getHours()", "1"),
        ("math.greatest(1, 5, 3) + math.least([4, 2])", "7"),
        ("math.ceil(1.2) == 2.0 && math.abs(-3) == 3", "true"),
        ("base64.encode(b'hi')", "\"aGk=\""),
        ("b'\\x01' == b'\\001'", "true"),
        ("'\\u00e9' == 'é' && r'\\n' == '\\\\n'", "true"),
        ("'''a\nb'''.size()", "3"),
        (
            "[1, 2, 2].distinct() == [1, 2] && [2, 1].sort() == [1, 2]",
            "true",
        ),
        ("{'a': [1]} == {'a': [1]}", "true"),
        ("!(1 == 2) != !!true", "false"),
        ("self.tags.size() // how many", "2"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, expect)| {
            let got = check(text);
            (got != *expect).then(|| format!("{text}: {got}, not {expect}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_of_types_and_syntax_before_anything_runs() {
    let cases = [
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "foo",
            "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')",
        ),
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'"),
        (
            "self.replicas.x",
            "ERROR: <input>:1:14: type 'int' does not support field selection",
        ),
        (
            "self.name.startsWith(1)",
            "ERROR: <input>:1:10: found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (
            "nope(1)",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')",
        ),
        (
            "self.replicas == 'x'",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.tags.all(t, t)",
            "ERROR: <input>:1:18: found no matching overload for '_&&_' applied to '(bool, string)'",
        ),
        (
            "self.replicas.all(t, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "self.tags.all(1, true)",
            "ERROR: <input>:1:15: argument must be a simple name",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'",
        ),
        (
            "(1",
            "ERROR: <input>:1:3: Syntax error: mismatched input '<EOF>' expecting ')'",
        ),
        (
            "'abc",
            "ERROR: <input>:1:1: Syntax error: a string does not end",
        ),
        (
            "1 # 2",
            "ERROR: <input>:1:3: Syntax error: token recognition error at: '#'",
        ),
        (
            "has(1)",
            "ERROR: <input>:1:1: invalid argument to has() macro",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, expect)| {
            let got = check(text);
            (got != *expect).then(|| format!("{text}: {got}, not {expect}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_hostile_rule_ends() {
    let spent = "error: operation cancelled: actual cost limit exceeded";
    for text in [
        "n.all(a, n.all(b, n.all(c, a + b + c >= 0)))",
        "n.map(a, n.map(b, n.map(c, c))).size() > 0",
        "n.all(a, n.all(b, 1/0 == 1 || n.exists(c, c < 0)))",
        "true || n.all(a, n.all(b, n.all(c, true))) ? n.all(a, n.all(b, n.all(c, true))) : false",
        "'xxxxxxxxxxxxxxxxxxxxxxxx'.replace('', 'yyyyyyyyyyyyyyyyyy').replace('', 'zzzzzzzzzzzzzzzzzzzz').replace('', 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz').replace('', 'zzzzzzzzzzzzzzzzzzzzzzzzzzz').size() > 0",
    ] {
        let got = check(text);
        assert!(got == spent || got.contains("too long"), "{text}: {got}");
    }
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(check(&deep).contains("recursion limit"), "{}", check(&deep));
    for sign in ["-", "!", "[", "self.", "{1:", "a ? b : "] {
        assert!(check(&sign.repeat(30_000)).starts_with("ERROR"), "{sign}");
    }
    let long = vec!["1"; 20_000].join(" + ");
    assert!(check(&long).contains("recursion limit"));
    let fine = vec!["self.replicas > 0"; 200].join(" && ");
    assert_eq!(check(&fine), "true");
}

#[test]
fn the_estimate_bounds_the_cost() {
    let bounded = |size: u64| {
        let item = Decl::of(Type::String, 10);
        let list = Decl {
            below: Some(Box::new(item)),
            ..Decl::of(Type::list(Type::String), size)
        };
        Env::default().with("self", list)
    };
    for text in [
        "self.all(x, x == 'abc')",
        "self.all(x, self.exists(y, y == x))",
        "self.map(x, x + x).join(',').size() > 1",
        "self.filter(x, x.matches('a+')).size() == 0",
        "self.isSorted() && self.indexOf('zzz') == -1 && !('q' in self)",
        "self == self && self + self != self",
        "self.all(x, '%s-%s'.format([x, x]).contains('-'))",
        "cel.bind(y, self.map(x, x.replace('a', 'bb')), y.all(z, z.startsWith('b') || true))",
    ] {
        let env = bounded(50);
        let program = Program::compile(text, &env).unwrap();
        let estimate = program.estimate(&env, 1000);
        let value = Value::list((0..50).map(|_| Value::text("aaaaaaaaaa")).collect());
        let mut meter = Meter::new(u64::MAX);
        program.run(&[("self", value)], &mut meter).unwrap();
        assert!(
            meter.used <= estimate,
            "{text}: used {}, estimated {estimate}",
            meter.used
        );
        assert!(
            estimate < 1000 * meter.used,
            "{text}: used {}, estimated {estimate}",
            meter.used
        );
    }
    let env = bounded(u64::MAX / 4);
    let program = Program::compile("self.all(x, self.all(y, x == y))", &env).unwrap();
    assert_eq!(program.estimate(&env, 1000), u64::MAX);
}

#[test]
fn sets_and_maps_of_schemas_have_no_order() {
    let list = |kind: ListKind, items: &[&str]| {
        Value::List(Arc::new(items.iter().map(Value::text).collect()), kind)
    };
    assert_eq!(
        list(ListKind::Set, &["a", "b"]),
        list(ListKind::Set, &["b", "a"])
    );
    assert_ne!(
        list(ListKind::Plain, &["a", "b"]),
        list(ListKind::Plain, &["b", "a"])
    );
    let env = Env::default()
        .with("a", Decl::of(Type::list(Type::String), 2))
        .with("b", Decl::of(Type::list(Type::String), 2));
    let program = Program::compile("a + b", &env).unwrap();
    let values = [
        ("a", list(ListKind::Set, &["x", "y"])),
        ("b", list(ListKind::Set, &["y", "z"])),
    ];
    let sum = program.run(&values, &mut Meter::new(100)).unwrap();
    assert_eq!(sum.to_json().unwrap(), json!(["x", "y", "z"]));
}
