# Makes the current rules of an address family the wanted ones, as input of iptables-restore --noflush.
#
# Reads the output of iptables-save and then, after a line "#wanted", the wanted rules: chains and rules of
# kube-proxy by table. What kube-proxy has there now and is not wanted goes; rules of others stay as they are.

function is_ours(chain) {
  return chain ~ /^KUBE-(SVC|SVL|EXT|FW|SEP)-/ ||
    chain ~ /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|FORWARD|POSTROUTING|MARK-MASQ|PROXY-FIREWALL|PROXY-CANARY)$/
}

function target(    i) {
  for (i = 3; i < NF; i++) if ($i == "-j" || $i == "-g") return $(i + 1)
  return ""
}

$0 == "#wanted" { wanted = 1; next }
/^#/ || /^$/ { next }
/^\*/ { table = $0; if (wanted) { order[++tables] = table } else { present[table] = 1 } next }

# Chains that are there and the jumps into them from chains of others.
!wanted && /^:/ { if (is_ours(substr($1, 2))) has[table, ++chains[table]] = substr($1, 2); next }
!wanted && $1 == "-A" && !is_ours($2) && is_ours(target()) { jumps[table, ++count[table]] = substr($0, 4); next }
!wanted { next }

# One element a line: text that grows line by line would be copied for each.
/^:/ { declared[table, ++declarations[table]] = $0; keep[table, substr($1, 2)] = 1; next }
$1 == "-I" { sub(/^-I /, ""); inserted[table, ++inserts[table]] = $0; is_wanted[table, $0] = 1; next }
$1 == "-A" { rules[table, ++appended[table]] = $0; next }

END {
  for (t = 1; t <= tables; t++) {
    table = order[t]
    # A table that holds nothing is not made.
    if (!declarations[table] && !present[table]) continue
    print table
    for (i = 1; i <= declarations[table]; i++) print declared[table, i]
    stale = 0
    for (i = 1; i <= chains[table]; i++) {
      chain = has[table, i]
      if (!((table, chain) in keep)) { gone[++stale] = chain; print ":" chain " - [0:0]" }
    }
    for (i = 1; i <= count[table]; i++) {
      jump = jumps[table, i]
      # Once is enough.
      if (is_wanted[table, jump] && !there[table, jump]++) continue
      print "-D " jump
    }
    for (i = 1; i <= inserts[table]; i++)
      if (!there[table, inserted[table, i]]) print "-I " inserted[table, i]
    for (i = 1; i <= appended[table]; i++) print rules[table, i]
    for (i = 1; i <= stale; i++) print "-X " gone[i]
    print "COMMIT"
  }
}
