# Put into the harness's drive.py before it starts: the ways in which lido is measured, and where each takes part.
PEERS.update({
    "lido": C("lido"),
    "lido-query": C("lido", mode="query"),
})
for _q in LOAD:
    LOAD[_q][3].append("lido")
for _q in ("q1", "q2", "q3"):
    LOAD[_q][3].append("lido-query")
_fault.append("lido")
_cold.append(("lido", {}))
_stream += [("lido", "whole"), ("lido", "rows"), ("lido", "copy")]
