# Put into the harness's drive.py before it starts: the ways in which lido is measured, and where each takes part.
PEERS.update({
    "lido": C("lido"),
    "lido-query": C("lido", mode="query"),
    "lido-mux": C("lido", mode="mux0"),
    "lido-mux1": C("lido", mode="mux1"),
    "lido-mux4": C("lido", mode="mux4"),
    "lido-loop-mux": C("lido_loop"),
    "lido-loop-mux1": C("lido_loop", mode="mux1"),
    "lido-loop-mux4": C("lido_loop", mode="mux4"),
})
for _q in LOAD:
    LOAD[_q][3].append("lido")
for _q in ("q1", "q2", "q3"):
    LOAD[_q][3].extend(["lido-query"] + [f"lido-{_way}mux{_n}" for _way in ("", "loop-") for _n in ("", "1", "4")])
_fault += ["lido", "lido-mux"]
_cold.append(("lido", {}))
_stream += [("lido", "whole"), ("lido", "rows"), ("lido", "copy")]
