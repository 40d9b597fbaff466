# Brings the jumps into the base chains and removes the chains of Services that are gone.
#
# usage: sh -ceu SCRIPT sh SAVE RESTORE < WANTED
#
# WANTED says which chains are to stay (`chain TABLE CHAIN`) and which jumps are to be there
# (`jump TABLE BASE-CHAIN CHAIN RULE`). Jumps that are missing are added, all other chains of kube-proxy are
# removed, with the jumps to them. Rules of others stay, and no table is made for the mere asking.

saved=$("$1")
changes=$({ cat; printf '%s\n' "$saved"; } | awk '
    function ours(chain) {
        return chain ~ /^KUBE-(SVC|SVL|EXT|FW|SEP)-/ \
            || chain ~ /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ)$/ \
            || chain ~ /^KUBE-(FORWARD|PROXY-FIREWALL|PROXY-CANARY)$/
    }
    function change(text) { changes[table] = changes[table] text "\n" }

    $1 == "chain" { keep[$2, $3] = 1; next }
    $1 == "jump" { jumps[++count] = $0; next }
    /^[*]/ { table = substr($1, 2); next }
    /^:/ {
        chain = substr($1, 2)
        if (ours(chain) && !((table, chain) in keep)) {
            change($1 " - [0:0]")
            stale[table] = stale[table] "-X " chain "\n"
        }
    }
    /^-A/ && ours($NF) && !ours($2) {
        there[table, $2, $NF] = 1
        if (!((table, $NF) in keep)) {
            change("-D" substr($0, 3))
        }
    }
    END {
        for (i = 1; i <= count; i++) {
            split(jumps[i], word, " ")
            table = word[2]
            if (!((table, word[3], word[4]) in there)) {
                rule = jumps[i]
                sub(/^jump [^ ]+ [^ ]+ [^ ]+ /, "", rule)
                change("-I " word[3] " " rule " -j " word[4])
            }
        }
        for (table in changes) {
            printf "*%s\n%s%sCOMMIT\n", table, changes[table], stale[table]
        }
    }')
[ -z "$changes" ] || printf '%s\n' "$changes" | "$2" --noflush -w 5
