/** Header of a request by which a peer says that it got wrong bytes of the blob that it names. */
export const suspectHeader = "x-spegel-suspect"
