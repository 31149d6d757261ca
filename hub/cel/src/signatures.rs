//! Every function that expressions can call, with its types.
//!
//! In: the table below. Out: overloads by name. Source: the CEL language definition's standard functions, and the
//! Kubernetes page "Common Expression Language in Kubernetes". Never: what functions do (see `library`).

use std::collections::HashMap;
use std::sync::OnceLock;

use super::types::Type;

/// `string.startsWith(string) bool`: a receiver, a name, arguments, a result. A, B are type parameters.
const TABLE: &str = "
!_(bool) bool
-_(int) int
-_(double) double
_&&_(bool,bool) bool
_||_(bool,bool) bool
_?_:_(bool,A,A) A
_==_(A,A) bool
_!=_(A,A) bool
@in(A,list<A>) bool
@in(A,map<A,B>) bool
_[_](list<A>,int) A
_[_](map<A,B>,A) B
_[_](optional<list<A>>,int) optional<A>
_[_](optional<map<A,B>>,A) optional<B>
_[?_](list<A>,int) optional<A>
_[?_](map<A,B>,A) optional<B>
_[?_](optional<list<A>>,int) optional<A>
_[?_](optional<map<A,B>>,A) optional<B>
_+_(int,int) int
_+_(uint,uint) uint
_+_(double,double) double
_+_(string,string) string
_+_(bytes,bytes) bytes
_+_(list<A>,list<A>) list<A>
_+_(timestamp,duration) timestamp
_+_(duration,timestamp) timestamp
_+_(duration,duration) duration
_-_(int,int) int
_-_(uint,uint) uint
_-_(double,double) double
_-_(timestamp,timestamp) duration
_-_(timestamp,duration) timestamp
_-_(duration,duration) duration
_*_(int,int) int
_*_(uint,uint) uint
_*_(double,double) double
_/_(int,int) int
_/_(uint,uint) uint
_/_(double,double) double
_%_(int,int) int
_%_(uint,uint) uint
size(string) int
size(bytes) int
size(list<A>) int
size(map<A,B>) int
string.size() int
bytes.size() int
list<A>.size() int
map<A,B>.size() int
bool(bool) bool
bool(string) bool
int(int) int
int(uint) int
int(double) int
int(string) int
int(timestamp) int
int(duration) int
uint(uint) uint
uint(int) uint
uint(double) uint
uint(string) uint
double(double) double
double(int) double
double(uint) double
double(string) double
string(string) string
string(bool) string
string(int) string
string(uint) string
string(double) string
string(bytes) string
string(timestamp) string
string(duration) string
string(ip) string
string(cidr) string
bytes(bytes) bytes
bytes(string) bytes
duration(duration) duration
duration(string) duration
duration(int) duration
timestamp(timestamp) timestamp
timestamp(string) timestamp
timestamp(int) timestamp
dyn(A) dyn
type(A) type
string.contains(string) bool
string.startsWith(string) bool
string.endsWith(string) bool
string.matches(string) bool
matches(string,string) bool
timestamp.getFullYear() int
timestamp.getFullYear(string) int
timestamp.getMonth() int
timestamp.getMonth(string) int
timestamp.getDayOfYear() int
timestamp.getDayOfYear(string) int
timestamp.getDayOfMonth() int
timestamp.getDayOfMonth(string) int
timestamp.getDate() int
timestamp.getDate(string) int
timestamp.getDayOfWeek() int
timestamp.getDayOfWeek(string) int
timestamp.getHours() int
timestamp.getHours(string) int
timestamp.getMinutes() int
timestamp.getMinutes(string) int
timestamp.getSeconds() int
timestamp.getSeconds(string) int
timestamp.getMilliseconds() int
timestamp.getMilliseconds(string) int
duration.getHours() int
duration.getMinutes() int
duration.getSeconds() int
duration.getMilliseconds() int
optional.of(A) optional<A>
optional.ofNonZeroValue(A) optional<A>
optional.none() optional<A>
optional<A>.hasValue() bool
optional<A>.value() A
optional<A>.or(optional<A>) optional<A>
optional<A>.orValue(A) A
optional.unwrap(list<optional<A>>) list<A>
list<optional<A>>.unwrapOpt() list<A>
string.charAt(int) string
string.indexOf(string) int
string.indexOf(string,int) int
string.lastIndexOf(string) int
string.lastIndexOf(string,int) int
string.lowerAscii() string
string.upperAscii() string
string.replace(string,string) string
string.replace(string,string,int) string
string.split(string) list<string>
string.split(string,int) list<string>
string.substring(int) string
string.substring(int,int) string
string.trim() string
string.reverse() string
string.format(list<dyn>) string
strings.quote(string) string
list<string>.join() string
list<string>.join(string) string
list<int>.isSorted() bool
list<uint>.isSorted() bool
list<double>.isSorted() bool
list<bool>.isSorted() bool
list<string>.isSorted() bool
list<bytes>.isSorted() bool
list<timestamp>.isSorted() bool
list<duration>.isSorted() bool
list<int>.sum() int
list<uint>.sum() uint
list<double>.sum() double
list<duration>.sum() duration
list<int>.min() int
list<uint>.min() uint
list<double>.min() double
list<string>.min() string
list<bool>.min() bool
list<bytes>.min() bytes
list<timestamp>.min() timestamp
list<duration>.min() duration
list<int>.max() int
list<uint>.max() uint
list<double>.max() double
list<string>.max() string
list<bool>.max() bool
list<bytes>.max() bytes
list<timestamp>.max() timestamp
list<duration>.max() duration
list<A>.indexOf(A) int
list<A>.lastIndexOf(A) int
list<A>.slice(int,int) list<A>
list<list<A>>.flatten() list<A>
list<A>.flatten() list<dyn>
list<A>.flatten(int) list<dyn>
list<A>.distinct() list<A>
list<A>.reverse() list<A>
list<A>.sort() list<A>
list<A>.first() optional<A>
list<A>.last() optional<A>
lists.range(int) list<int>
string.find(string) string
string.findAll(string) list<string>
string.findAll(string,int) list<string>
url(string) url
isURL(string) bool
url.getScheme() string
url.getHost() string
url.getHostname() string
url.getPort() string
url.getEscapedPath() string
url.getQuery() map<string,list<string>>
ip(string) ip
isIP(string) bool
ip.isCanonical(string) bool
ip.family() int
ip.isUnspecified() bool
ip.isLoopback() bool
ip.isLinkLocalMulticast() bool
ip.isLinkLocalUnicast() bool
ip.isGlobalUnicast() bool
cidr(string) cidr
isCIDR(string) bool
cidr.containsIP(ip) bool
cidr.containsIP(string) bool
cidr.containsCIDR(cidr) bool
cidr.containsCIDR(string) bool
cidr.ip() ip
cidr.masked() cidr
cidr.prefixLength() int
quantity(string) quantity
isQuantity(string) bool
quantity.sign() int
quantity.isInteger() bool
quantity.asInteger() int
quantity.asApproximateFloat() double
quantity.add(quantity) quantity
quantity.add(int) quantity
quantity.sub(quantity) quantity
quantity.sub(int) quantity
quantity.isGreaterThan(quantity) bool
quantity.isLessThan(quantity) bool
quantity.compareTo(quantity) int
semver(string) semver
semver(string,bool) semver
isSemver(string) bool
isSemver(string,bool) bool
semver.major() int
semver.minor() int
semver.patch() int
semver.isGreaterThan(semver) bool
semver.isLessThan(semver) bool
semver.compareTo(semver) int
format.dns1123Label() format
format.dns1123Subdomain() format
format.dns1035Label() format
format.qualifiedName() format
format.dns1123LabelPrefix() format
format.dns1123SubdomainPrefix() format
format.dns1035LabelPrefix() format
format.labelValue() format
format.uri() format
format.uuid() format
format.byte() format
format.date() format
format.datetime() format
format.named(string) optional<format>
format.validate(string) optional<list<string>>
base64.encode(bytes) string
base64.decode(string) bytes
math.greatest(A,A) A
math.greatest(A,A,A) A
math.greatest(list<A>) A
math.least(A,A) A
math.least(A,A,A) A
math.least(list<A>) A
math.ceil(double) double
math.floor(double) double
math.round(double) double
math.trunc(double) double
math.sqrt(double) double
math.sqrt(int) double
math.abs(int) int
math.abs(uint) uint
math.abs(double) double
math.sign(int) int
math.sign(uint) uint
math.sign(double) double
math.isNaN(double) bool
math.isInf(double) bool
math.isFinite(double) bool
math.bitAnd(int,int) int
math.bitOr(int,int) int
math.bitXor(int,int) int
math.bitNot(int) int
math.bitShiftLeft(int,int) int
math.bitShiftRight(int,int) int
authorizer.path(string) pathcheck
authorizer.group(string) groupcheck
authorizer.serviceAccount(string,string) authorizer
groupcheck.resource(string) resourcecheck
resourcecheck.subresource(string) resourcecheck
resourcecheck.namespace(string) resourcecheck
resourcecheck.name(string) resourcecheck
resourcecheck.fieldSelector(string) resourcecheck
resourcecheck.labelSelector(string) resourcecheck
pathcheck.check(string) decision
resourcecheck.check(string) decision
decision.allowed() bool
decision.reason() string
decision.errored() bool
decision.error() string
jsonpatch.escapeKey(string) string
";

/// Comparisons: of equals, and of numbers of different types.
const ORDERED: [&str; 8] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
    "duration",
];
const NUMBERS: [&str; 3] = ["int", "uint", "double"];

#[derive(Debug, Clone)]
pub struct Signature {
    pub receiver: Option<Type>,
    pub args: Vec<Type>,
    pub result: Type,
}

impl Signature {
    /// Receiver and arguments.
    pub fn all(&self) -> impl Iterator<Item = &Type> {
        self.receiver.iter().chain(&self.args)
    }
}

/// Overloads of a name.
pub fn of(name: &str) -> &'static [Signature] {
    table().get(name).map(Vec::as_slice).unwrap_or_default()
}

/// Whether a dotted name is a function rather than a method of a variable.
pub fn is_function(name: &str) -> bool {
    of(name)
        .iter()
        .any(|signature| signature.receiver.is_none())
}

fn table() -> &'static HashMap<String, Vec<Signature>> {
    static MADE: OnceLock<HashMap<String, Vec<Signature>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut table: HashMap<String, Vec<Signature>> = HashMap::new();
        for line in TABLE.lines().filter(|line| !line.is_empty()) {
            if let Some((name, signature)) = read(line) {
                table.entry(name).or_default().push(signature);
            }
        }
        for operator in ["_<_", "_<=_", "_>_", "_>=_"] {
            let mut pairs: Vec<(&str, &str)> = ORDERED.iter().map(|kind| (*kind, *kind)).collect();
            for left in NUMBERS {
                pairs.extend(
                    NUMBERS
                        .iter()
                        .filter(|right| **right != left)
                        .map(|right| (left, *right)),
                );
            }
            let of = |(left, right): (&str, &str)| Signature {
                receiver: None,
                args: vec![named(left), named(right)],
                result: Type::Bool,
            };
            table.insert(operator.to_owned(), pairs.into_iter().map(of).collect());
        }
        table
    })
}

fn read(line: &str) -> Option<(String, Signature)> {
    let (head, result) = line.rsplit_once(' ')?;
    let open = head.rfind('(')?;
    let (path, args) = (&head[..open], head[open + 1..].strip_suffix(')')?);
    let (receiver, name) = match path.rsplit_once('.') {
        // Names of functions that only look like methods.
        Some((own, _))
            if NAMESPACES.contains(&own)
                && !(own == "format" && path == "format.validate")
                && !is_method(path) =>
        {
            (None, path.to_owned())
        }
        Some((receiver, name)) => (Some(named(receiver)), name.to_owned()),
        None => (None, path.to_owned()),
    };
    let args = split(args).into_iter().map(named).collect();
    Some((
        name,
        Signature {
            receiver,
            args,
            result: named(result),
        },
    ))
}

const NAMESPACES: [&str; 9] = [
    "optional",
    "math",
    "strings",
    "lists",
    "base64",
    "format",
    "ip",
    "cidr",
    "jsonpatch",
];

/// Names that are a namespace and a type.
fn is_method(path: &str) -> bool {
    match path.split_once('.') {
        Some(("ip", name)) => name != "isCanonical",
        Some(("cidr", _)) => true,
        _ => false,
    }
}

/// Splits at commas outside of angle brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(&text[begin..]);
    }
    parts
}

fn named(word: &str) -> Type {
    let inner = |prefix: &str| {
        word.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix('>'))
    };
    if let Some(item) = inner("list<") {
        return Type::list(named(item));
    }
    if let Some(value) = inner("optional<") {
        return Type::optional(named(value));
    }
    if let Some(both) = inner("map<") {
        let parts = split(both);
        return Type::map(
            named(parts.first().copied().unwrap_or("dyn")),
            named(parts.get(1).copied().unwrap_or("dyn")),
        );
    }
    match word {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "ip" => Type::Opaque(IP),
        "cidr" => Type::Opaque(CIDR),
        "url" => Type::Opaque(URL),
        "quantity" => Type::Opaque(QUANTITY),
        "semver" => Type::Opaque(SEMVER),
        "format" => Type::Opaque(FORMAT),
        "authorizer" => Type::Opaque(AUTHORIZER),
        "pathcheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
        "groupcheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
        "resourcecheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::Opaque("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}

pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";
pub const URL: &str = "kubernetes.URL";
pub const QUANTITY: &str = "kubernetes.Quantity";
pub const SEMVER: &str = "kubernetes.Semver";
pub const FORMAT: &str = "kubernetes.NamedFormat";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
