module spegel-ts/cluster/pause

go 1.24
