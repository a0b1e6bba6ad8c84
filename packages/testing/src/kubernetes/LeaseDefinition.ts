/** The CustomResourceDefinition by which `ApiServer` serves Leases where a cluster does. */
const string = { type: "string" }
const time = { type: "string", format: "date-time" }
const integer = { type: "integer", format: "int32" }
export const leaseDefinition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: {
    name: "leases.coordination.k8s.io",
    annotations: { "api-approved.kubernetes.io": "https://kubernetes.io/docs/concepts/architecture/leases/" }
  },
  spec: {
    group: "coordination.k8s.io",
    scope: "Namespaced",
    names: { plural: "leases", singular: "lease", kind: "Lease", listKind: "LeaseList" },
    versions: [{
      name: "v1",
      served: true,
      storage: true,
      schema: {
        openAPIV3Schema: {
          type: "object",
          properties: {
            spec: {
              type: "object",
              properties: {
                holderIdentity: string,
                leaseDurationSeconds: integer,
                acquireTime: time,
                renewTime: time,
                leaseTransitions: integer
              }
            }
          }
        }
      }
    }]
  }
}
